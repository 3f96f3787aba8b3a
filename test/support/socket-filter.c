/*
 * Runs a classic BPF program in the kernel over frames, by SO_ATTACH_FILTER.
 *
 * socket-filter PROGRAM: on one end of a pair of sockets, where sk_filter() runs it over the
 * datagram's bytes from the first one on; answers how many bytes it kept of each frame.
 * socket-filter PROGRAM RECEIVER SENDER: on a packet socket of RECEIVER's eth0, for frames sent from
 * SENDER's eth0 (network namespaces); answers 1 for what it let through, 0 for what it rejected, and
 * 2 for what never got there. Bytes 6 to 11 are replaced by the frame's number, as in kernel-lab.c.
 *
 * PROGRAM as `tcpdump -ddd` prints it; frames on standard input, a little-endian u32 length before
 * each; one u32 answered for each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "filter-program.h"

static uint8_t frame[1 << 16], got[1 << 16];

static void attach(int fd, const struct sock_fprog *program)
{
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, sizeof(*program)) < 0)
		die("SO_ATTACH_FILTER");
}

static uint32_t run_on_pair(const int ends[2], uint32_t length)
{
	ssize_t received;

	if (send(ends[0], frame, length, 0) < 0)
		die("send");
	/* unix_dgram_sendmsg() says nothing of what the filter rejects: nothing is there then. */
	received = recv(ends[1], got, sizeof(got), MSG_DONTWAIT);
	if (received < 0 && errno != EAGAIN)
		die("recv");
	return received < 0 ? 0 : received;
}

static void enter(const char *netns)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die(path);
	close(fd);
}

static int packet_socket(int protocol, const struct sock_fprog *program)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(protocol),
		.sll_ifindex = if_nametoindex("eth0"),
	};
	struct timeval patience = { .tv_usec = 200000 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket(AF_PACKET)");
	if (program)
		attach(fd, program);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("bind");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		die("SO_RCVTIMEO");
	return fd;
}

/* Frames of the kernel's own have other source addresses. */
static int is_same(ssize_t received)
{
	return received >= ETH_HLEN && memcmp(got + 6, frame + 6, 6) == 0;
}

struct wire {
	int out, all, filtered;
};

static uint32_t run_on_wire(const struct wire *wire, uint32_t length, uint32_t index)
{
	uint32_t serial = htonl(index), kept = 0;
	ssize_t received;

	if (length < ETH_HLEN)
		return 2;
	frame[6] = 6;
	frame[7] = 0;
	memcpy(frame + 8, &serial, 4);
	if (send(wire->out, frame, length, 0) < 0) {
		if (errno == EMSGSIZE)
			return 2;
		die("send");
	}
	/* The socket bound last is served first: what reached this one has passed the filter or not. */
	do {
		received = recv(wire->all, got, sizeof(got), 0);
		if (received < 0)
			return 2;
	} while (!is_same(received));
	while ((received = recv(wire->filtered, got, sizeof(got), MSG_DONTWAIT)) >= 0)
		kept |= is_same(received);
	return kept;
}

int main(int argc, char **argv)
{
	struct sock_fprog program;
	uint32_t length, index = 0;
	struct wire wire = { 0 };
	int ends[2];

	if (argc != 2 && argc != 4) {
		fprintf(stderr, "usage: socket-filter PROGRAM [RECEIVER SENDER]\n");
		return 2;
	}
	program = read_program(argv[1]);
	if (argc == 2) {
		if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0)
			die("socketpair");
		attach(ends[1], &program);
	} else {
		enter(argv[2]);
		wire.all = packet_socket(ETH_P_ALL, NULL);
		wire.filtered = packet_socket(ETH_P_ALL, &program);
		enter(argv[3]);
		wire.out = packet_socket(0, NULL);
	}
	while (fread(&length, 4, 1, stdin) == 1) {
		uint32_t answer;

		if (length > sizeof(frame) || fread(frame, 1, length, stdin) != length)
			die("frame");
		answer = argc == 2 ? run_on_pair(ends, length) : run_on_wire(&wire, length, index);
		index++;
		if (fwrite(&answer, 4, 1, stdout) != 1)
			die("write");
	}
	return 0;
}
