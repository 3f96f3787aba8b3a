#!/usr/bin/perl
# Sends frames (one a line, hex) from one device to another and prints which of them come in there
# behind tc: tc-flower-frames.pl FROM TO < FRAMES. A frame's number stands in its source address.
use strict;
use warnings;
use constant { AF_PACKET => 17, SOCK_RAW => 3, SOL_SOCKET => 1, SO_RCVBUFFORCE => 33 };    # asm-generic/socket.h

my ($from, $to) = @ARGV;
my %protocols = (0x0800 => undef, 0x86dd => undef);    # ETH_P_IP, ETH_P_IPV6

sub index_of {
  my ($device) = @_;
  open(my $file, '<', "/sys/class/net/$device/ifindex") or die "$device: $!";
  my $index = <$file>;
  return $index + 0;
}

# struct sockaddr_ll, include/uapi/linux/if_packet.h.
sub address {
  my ($device, $protocol) = @_;
  return pack('S n i S C C a8', AF_PACKET, $protocol, index_of($device), 0, 0, 6, '');
}

sub open_socket {
  my ($device, $protocol) = @_;
  socket(my $socket, AF_PACKET, SOCK_RAW, unpack('S', pack('n', $protocol))) or die "socket: $!";
  setsockopt($socket, SOL_SOCKET, SO_RCVBUFFORCE, pack('i', 64 << 20)) or die "buffer: $!";
  bind($socket, address($device, $protocol)) or die "bind: $!";
  return $socket;
}

$protocols{$_} = open_socket($to, $_) for keys %protocols;
my $out = open_socket($from, 0x88b5);    # an EtherType that nothing here has
my $number = 0;
while (my $line = <STDIN>) {
  chomp $line;
  my $frame = pack('H*', $line);
  substr($frame, 6, 6) = pack('C C N', 2, 0, $number);
  send($out, $frame, 0) or die "frame $number: $!";
  $number += 1;
}
sleep 1;
for my $socket (values %protocols) {
  my $bits = '';
  vec($bits, fileno($socket), 1) = 1;
  while (select(my $ready = $bits, undef, undef, 0)) {
    defined(recv($socket, my $frame, 65536, 0)) or die "recv: $!";
    my ($mark, $zero, $which) = unpack('C C N', substr($frame, 6, 6));
    print "$which\n" if $mark == 2 && $zero == 0;
  }
}
