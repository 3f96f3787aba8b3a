/*
 * How long the kernel runs classic BPF programs over frames: cbpf-time ROUNDS PROGRAM... < FRAMES
 *
 * In a network namespace of its own, SOCKETS packet sockets on one end of a veth pair have a program, so
 * that every frame sent there is shown to each of them (dev_queue_xmit_nit(), packet_rcv()). Programs
 * take turns, ROUNDS times. Prints a line for each: nanoseconds of processor time a frame and a socket in
 * its fastest round, all that stands around it included; take off what a program of one `ret #0` takes.
 *
 * PROGRAM as `tcpdump -ddd` prints it, its returns made 0 by the caller, so that nothing is queued;
 * frames with a little-endian u32 length before each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../test/support/filter-program.h"

enum { SOCKETS = 64, MOST_FRAMES = 1 << 16, MOST_PROGRAMS = 8 };

static int packet_socket(int protocol)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(protocol),
		.sll_ifindex = if_nametoindex("eth0"),
	};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("socket(AF_PACKET)");
	return fd;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static uint8_t *frames[MOST_FRAMES];
static uint32_t lengths[MOST_FRAMES], count;

static void read_frames(void)
{
	uint32_t length;

	while (count < MOST_FRAMES && fread(&length, 4, 1, stdin) == 1) {
		frames[count] = malloc(length);
		lengths[count] = length;
		if (!frames[count] || fread(frames[count], 1, length, stdin) != length)
			die("frame");
		count++;
	}
}

static double time_round(const struct sock_fprog *program, const int *in, int out)
{
	double start;

	for (int i = 0; i < SOCKETS; i++)
		if (setsockopt(in[i], SOL_SOCKET, SO_ATTACH_FILTER, program, sizeof(*program)) < 0)
			die("SO_ATTACH_FILTER");
	start = seconds();
	for (uint32_t i = 0; i < count; i++)
		if (send(out, frames[i], lengths[i], 0) < 0)
			die("send");
	return (seconds() - start) * 1e9 / ((double)count * SOCKETS);
}

int main(int argc, char **argv)
{
	struct sock_fprog programs[MOST_PROGRAMS];
	double best[MOST_PROGRAMS];
	int in[SOCKETS], out, given = argc - 2;

	if (given < 1 || given > MOST_PROGRAMS) {
		fprintf(stderr, "usage: cbpf-time ROUNDS PROGRAM...\n");
		return 2;
	}
	for (int p = 0; p < given; p++)
		programs[p] = read_program(argv[p + 2]);
	read_frames();
	if (unshare(CLONE_NEWNET) < 0)
		die("unshare");
	if (system("ip link add eth0 type veth peer name eth1 && ip link set eth0 up && ip link set eth1 up"))
		die("ip link add eth0 type veth");
	for (int i = 0; i < SOCKETS; i++)
		in[i] = packet_socket(ETH_P_ALL);
	out = packet_socket(0);
	for (int round = 0; round < atoi(argv[1]); round++)
		for (int p = 0; p < given; p++) {
			double took = time_round(&programs[p], in, out);

			if (round == 0 || took < best[p])
				best[p] = took;
		}
	for (int p = 0; p < given; p++)
		printf("%.2f\n", best[p]);
	return 0;
}
