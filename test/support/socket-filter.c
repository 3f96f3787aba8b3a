/*
 * Runs a classic BPF program in the kernel over frames, by SO_ATTACH_FILTER on one end of a pair of
 * sockets: sk_filter() runs it over the datagram's bytes from the first one on.
 *
 * socket-filter PROGRAM: PROGRAM as `tcpdump -ddd` prints it; frames on standard input, a
 * little-endian u32 length before each; answers one u32 a frame, how many bytes the filter kept.
 */
#include <errno.h>
#include <linux/filter.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "socket-filter: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sock_fprog read_program(const char *path)
{
	static struct sock_filter insns[BPF_MAXINSNS];
	unsigned int count, code, jt, jf, k;
	FILE *file = fopen(path, "r");

	if (!file || fscanf(file, "%u", &count) != 1 || count > BPF_MAXINSNS)
		die(path);
	for (unsigned int i = 0; i < count; i++) {
		if (fscanf(file, "%u %u %u %u", &code, &jt, &jf, &k) != 4)
			die(path);
		insns[i] = (struct sock_filter){ code, jt, jf, k };
	}
	fclose(file);
	return (struct sock_fprog){ count, insns };
}

int main(int argc, char **argv)
{
	static uint8_t frame[1 << 16], got[1 << 16];
	struct sock_fprog program;
	uint32_t length;
	int ends[2];

	if (argc != 2) {
		fprintf(stderr, "usage: socket-filter PROGRAM\n");
		return 2;
	}
	program = read_program(argv[1]);
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0)
		die("socketpair");
	if (setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
		die("SO_ATTACH_FILTER");
	while (fread(&length, 4, 1, stdin) == 1) {
		uint32_t kept = 0;
		ssize_t received;

		if (length > sizeof(frame) || fread(frame, 1, length, stdin) != length)
			die("frame");
		if (send(ends[0], frame, length, 0) < 0)
			die("send");
		/* unix_dgram_sendmsg() says nothing of what the filter rejects: nothing is there then. */
		received = recv(ends[1], got, sizeof(got), MSG_DONTWAIT);
		if (received < 0 && errno != EAGAIN)
			die("recv");
		if (received >= 0)
			kept = received;
		if (fwrite(&kept, 4, 1, stdout) != 1)
			die("write");
	}
	return 0;
}
