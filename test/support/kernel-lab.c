/*
 * The fast half of kernel-lab.ts: sends frames into a namespace and reads back which of them the
 * oracle sets saw, and runs a pinned XDP program over frames.
 *
 *   kernel-lab send RECEIVER SENDER   frames on stdin -> one little-endian u16 a frame on stdout;
 *                                     a frame from ff:ff:ff:ff:ff:ff is sent by the receiver itself
 *   kernel-lab forget RECEIVER        empties the connection tracking table
 *   kernel-lab run PIN                frames on stdin -> one byte a frame (XDP action) on stdout
 *
 * Standard input is a sequence of { u32 length, little-endian; bytes }.
 * u16: bit 0 sent; bits 2k+1 and 2k+2: member of the sets reached and seen of hook k
 * (0 ingress, 1 prerouting, 2 input, 3 forward, 4 ingress of the devices above, 5 bridge prerouting,
 * 6 bridge input).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip6.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ORACLE "nfo_oracle"
/* Frames between two barriers. A veth ring under XDP holds 256 (drivers/net/veth.c, VETH_RING_SIZE),
 * a CPU's backlog 1000 (net.core.netdev_max_backlog); both drop silently when full. */
#define BURST 64
/* After a barrier the CPU's backlog has been polled once; a veth ring is polled round-robin with it,
 * 64 frames (NAPI_POLL_WEIGHT) a time. */
#define BARRIERS 3
/* IEEE Std 802 local experimental EtherType 1. */
#define BARRIER_PROTOCOL 0x88b5

struct frame {
	uint32_t length;
	uint8_t *data;
};

static struct frame *frames;
static uint32_t frame_count;

static void die(const char *what)
{
	fprintf(stderr, "kernel-lab: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void read_frames(void)
{
	size_t size = 0, room = 1 << 20, at = 0, slots = 0;
	uint8_t *input = malloc(room);

	for (;;) {
		ssize_t got = read(0, input + size, room - size);

		if (got < 0)
			die("read");
		if (got == 0)
			break;
		size += got;
		if (size == room)
			input = realloc(input, room *= 2);
	}
	while (at + 4 <= size) {
		if (frame_count == slots) {
			slots = slots ? slots * 2 : 1024;
			frames = realloc(frames, slots * sizeof(*frames));
		}
		memcpy(&frames[frame_count].length, input + at, 4);
		frames[frame_count].data = input + at + 4;
		at += 4 + frames[frame_count].length;
		frame_count++;
	}
	if (at != size) {
		fprintf(stderr, "kernel-lab: input ends inside a frame\n");
		exit(1);
	}
}

static void write_all(const void *data, size_t size)
{
	while (size > 0) {
		ssize_t put = write(1, data, size);

		if (put < 0)
			die("write");
		data = (const uint8_t *)data + put;
		size -= put;
	}
}

static void enter(const char *netns)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path);
	if (setns(fd, CLONE_NEWNET) < 0)
		die("setns");
	close(fd);
}

static int packet_socket(const char *device, int protocol)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(protocol),
		.sll_ifindex = if_nametoindex(device),
	};
	struct timeval patience = { .tv_sec = 5 };
	/* Protocol 0 hooks nothing: moving a hooked socket in bind, and each close, waits for RCU. */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket(AF_PACKET)");
	if (address.sll_ifindex == 0)
		die(device);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("bind");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		die("SO_RCVTIMEO");
	return fd;
}

/* Frames lost between the two ends; a loss would look like a drop by the ruleset. */
static unsigned long long lost_frames(const char *device)
{
	char line[512], name[64];
	unsigned long long rx[8], tx[8];
	FILE *file = fopen("/proc/thread-self/net/dev", "r");

	if (!file)
		die("/proc/thread-self/net/dev");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, " %63[^:]: %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu",
			   name, &rx[0], &rx[1], &rx[2], &rx[3], &rx[4], &rx[5], &rx[6], &rx[7], &tx[0],
			   &tx[1], &tx[2], &tx[3]) == 13 &&
		    strcmp(name, device) == 0) {
			fclose(file);
			return tx[3];
		}
	}
	errno = ENODEV;
	die(device);
	return 0;
}

/*
 * All frames sent before are through the receiver's hooks when this returns: sender and softirq
 * share one CPU, whose queues are first in, first out.
 */
static void barrier(int sender, int receiver)
{
	static uint32_t serial;
	uint8_t out[60] = { 2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 2, BARRIER_PROTOCOL >> 8,
			    BARRIER_PROTOCOL & 0xff };
	uint8_t in[128];

	for (int round = 0; round < BARRIERS; round++) {
		serial++;
		memcpy(out + 14, &serial, 4);
		if (send(sender, out, sizeof(out), 0) < 0)
			die("send barrier");
		do {
			if (recv(receiver, in, sizeof(in), 0) < 18)
				die("receive barrier");
		} while (memcmp(in + 14, &serial, 4) != 0);
	}
}

struct request {
	struct nlmsghdr header;
	struct nfgenmsg generic;
	uint8_t attributes[128];
};

static void put_string(struct request *request, int type, const char *text)
{
	struct nlattr *attribute = (void *)((uint8_t *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + strlen(text) + 1;
	strcpy((char *)attribute + NLA_HDRLEN, text);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + NLA_ALIGN(attribute->nla_len);
}

static struct request new_request(int type, int flags, int family)
{
	return (struct request){
		.header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)),
			    .nlmsg_type = type,
			    .nlmsg_flags = NLM_F_REQUEST | flags },
		.generic = { .nfgen_family = family,
			     .version = NFNETLINK_V0,
			     .res_id = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END ?
					       htons(NFNL_SUBSYS_NFTABLES) :
					       0 },
	};
}

static const struct oracle_set {
	int family;
	const char *name;
} sets[] = {
	{ NFPROTO_NETDEV, "reached_ingress" }, { NFPROTO_NETDEV, "seen_ingress" },
	{ NFPROTO_INET, "reached_prerouting" }, { NFPROTO_INET, "seen_prerouting" },
	{ NFPROTO_INET, "reached_input" }, { NFPROTO_INET, "seen_input" },
	{ NFPROTO_INET, "reached_forward" }, { NFPROTO_INET, "seen_forward" },
	{ NFPROTO_NETDEV, "reached_upper" }, { NFPROTO_NETDEV, "seen_upper" },
	{ NFPROTO_BRIDGE, "reached_bridge" }, { NFPROTO_BRIDGE, "seen_bridge" },
	{ NFPROTO_BRIDGE, "reached_bridge_input" }, { NFPROTO_BRIDGE, "seen_bridge_input" },
};
#define SETS (int)(sizeof(sets) / sizeof(sets[0]))

static int nf_socket(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	int room = 4 << 20;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("netlink socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}

/* A DELSETELEM without elements empties the set (net/netfilter/nf_tables_api.c, nf_tables_delsetelem). */
static void flush_sets(int fd)
{
	uint8_t batch[4096];
	size_t size = 0;
	char reply[8192];
	struct request parts[SETS + 2];
	int answers = 0;

	parts[0] = new_request(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC);
	for (int index = 0; index < SETS; index++) {
		struct request *part = &parts[index + 1];

		*part = new_request(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELSETELEM, NLM_F_ACK,
				    sets[index].family);
		put_string(part, NFTA_SET_ELEM_LIST_TABLE, ORACLE);
		put_string(part, NFTA_SET_ELEM_LIST_SET, sets[index].name);
	}
	parts[SETS + 1] = new_request(NFNL_MSG_BATCH_END, 0, AF_UNSPEC);
	for (int index = 0; index < SETS + 2; index++) {
		memcpy(batch + size, &parts[index], parts[index].header.nlmsg_len);
		size += NLMSG_ALIGN(parts[index].header.nlmsg_len);
	}
	if (send(fd, batch, size, 0) < 0)
		die("flush sets");
	while (answers < SETS) {
		ssize_t left = recv(fd, reply, sizeof(reply), 0);

		if (left < 0)
			die("flush sets");
		for (struct nlmsghdr *message = (void *)reply; NLMSG_OK(message, left);
		     message = NLMSG_NEXT(message, left)) {
			struct nlmsgerr *error = NLMSG_DATA(message);

			if (message->nlmsg_type != NLMSG_ERROR)
				continue;
			if (error->error != 0) {
				errno = -error->error;
				die("flush sets (is a ruleset loaded?)");
			}
			answers++;
		}
	}
}

/* A CT_DELETE without a tuple deletes all (net/netfilter/nf_conntrack_netlink.c, ctnetlink_del_conntrack). */
static void forget_connections(const char *netns)
{
	struct request request =
		new_request(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_ACK, AF_UNSPEC);
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t rest[256];
	} reply;
	int fd;

	enter(netns);
	fd = nf_socket();
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0 ||
	    recv(fd, &reply, sizeof(reply), 0) < (ssize_t)NLMSG_LENGTH(sizeof(reply.error.error)))
		die("forget connections");
	if (reply.error.error != 0) {
		errno = -reply.error.error;
		die("forget connections");
	}
}

static struct nlattr *find(struct nlattr *first, int size, int type)
{
	for (struct nlattr *at = first; size >= NLA_HDRLEN && at->nla_len >= NLA_HDRLEN;) {
		int step = NLA_ALIGN(at->nla_len);

		if ((at->nla_type & NLA_TYPE_MASK) == type)
			return at;
		size -= step;
		at = (void *)((uint8_t *)at + step);
	}
	return NULL;
}

static struct nlattr *inside(struct nlattr *outer, int type)
{
	return outer ? find((void *)((uint8_t *)outer + NLA_HDRLEN), outer->nla_len - NLA_HDRLEN, type) :
		       NULL;
}

/* Marks the frames whose source MAC is in the message; counts those that were not marked before. */
static uint32_t mark_elements(struct nlmsghdr *message, uint16_t bit, uint16_t *masks)
{
	struct nlattr *first = (void *)((uint8_t *)NLMSG_DATA(message) + NLMSG_ALIGN(sizeof(struct nfgenmsg)));
	int size = message->nlmsg_len - NLMSG_LENGTH(sizeof(struct nfgenmsg));
	struct nlattr *list = find(first, size, NFTA_SET_ELEM_LIST_ELEMENTS);
	uint32_t fresh = 0;
	int left = list ? list->nla_len - NLA_HDRLEN : 0;
	uint8_t *at = (uint8_t *)list + NLA_HDRLEN;

	while (left >= NLA_HDRLEN) {
		struct nlattr *element = (void *)at;
		struct nlattr *value = inside(inside(element, NFTA_SET_ELEM_KEY), NFTA_DATA_VALUE);
		uint8_t *mac = (uint8_t *)value + NLA_HDRLEN;

		if (value && value->nla_len == NLA_HDRLEN + 6 && mac[0] == 6 && mac[1] == 0) {
			uint32_t index = ntohl(*(uint32_t *)(mac + 2));

			if (index < frame_count && !(masks[index] & bit)) {
				masks[index] |= bit;
				fresh++;
			}
		}
		left -= NLA_ALIGN(element->nla_len);
		at += NLA_ALIGN(element->nla_len);
	}
	return fresh;
}

static uint32_t dump_set(int fd, const struct oracle_set *set, uint16_t bit, uint16_t *masks)
{
	static char reply[1 << 16];
	struct request request =
		new_request(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM, NLM_F_DUMP, set->family);
	uint32_t fresh = 0;

	put_string(&request, NFTA_SET_ELEM_LIST_TABLE, ORACLE);
	put_string(&request, NFTA_SET_ELEM_LIST_SET, set->name);
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
		die("dump set");
	for (;;) {
		ssize_t left = recv(fd, reply, sizeof(reply), 0);

		if (left < 0)
			die("dump set");
		for (struct nlmsghdr *message = (void *)reply; NLMSG_OK(message, left);
		     message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_type == NLMSG_DONE)
				return fresh;
			if (message->nlmsg_type == NLMSG_ERROR) {
				errno = -((struct nlmsgerr *)NLMSG_DATA(message))->error;
				die("dump set");
			}
			fresh += mark_elements(message, bit, masks);
		}
	}
}

static const uint8_t from_inside[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

/* The frame's packet goes the way of any packet of the machine; that rules refuse it is no error. */
static void send_inside(int four, int six, const struct frame *frame)
{
	const uint8_t *packet = frame->data + ETH_HLEN;
	size_t length = frame->length - ETH_HLEN;

	if (length >= 20 && packet[0] >> 4 == 4) {
		struct sockaddr_in to = { .sin_family = AF_INET };

		memcpy(&to.sin_addr, packet + 16, 4);
		sendto(four, packet, length, 0, (void *)&to, sizeof(to));
	} else if (length >= 40 && packet[0] >> 4 == 6) {
		struct sockaddr_in6 to = { .sin6_family = AF_INET6 };

		memcpy(&to.sin6_addr, packet + 24, 16);
		sendto(six, packet, length, 0, (void *)&to, sizeof(to));
	}
}

static void send_frames(const char *receiver_netns, const char *sender_netns)
{
	uint16_t *masks = calloc(frame_count + 1, sizeof(*masks));
	int wire, barrier_out, barrier_in, netlink, four, six;
	unsigned long long lost;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu) < 0)
		die("sched_setaffinity");
	enter(receiver_netns);
	netlink = nf_socket();
	barrier_in = packet_socket("sync0", BARRIER_PROTOCOL);
	/* IPPROTO_RAW: packets come with their IP header (raw(7)). */
	four = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	six = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (four < 0 || six < 0)
		die("raw socket");
	enter(sender_netns);
	wire = packet_socket("eth0", 0);
	barrier_out = packet_socket("sync0", 0);
	flush_sets(netlink);
	lost = lost_frames("eth0");
	for (uint32_t index = 0; index < frame_count; index++) {
		struct frame *frame = &frames[index];
		uint32_t serial = htonl(index);

		if (index % BURST == BURST - 1)
			barrier(barrier_out, barrier_in);
		if (frame->length < ETH_HLEN)
			continue;
		if (memcmp(frame->data + 6, from_inside, 6) == 0) {
			send_inside(four, six, frame);
			continue;
		}
		frame->data[6] = 6;
		frame->data[7] = 0;
		memcpy(frame->data + 8, &serial, 4);
		if (send(wire, frame->data, frame->length, 0) < 0) {
			if (errno == EMSGSIZE)
				continue;
			die("send");
		}
		masks[index] |= 1;
	}
	barrier(barrier_out, barrier_in);
	if (lost_frames("eth0") != lost) {
		errno = ENOBUFS;
		die("frames were lost between the ends");
	}
	for (int index = 0; index < SETS; index++) {
		/* A dump that meets a hash table being resized may miss elements, never invent them. */
		while (dump_set(netlink, &sets[index], 2 << index, masks) != 0)
			;
	}
	write_all(masks, frame_count * sizeof(*masks));
}

static void run_program(const char *pin)
{
	uint8_t *actions = malloc(frame_count + 1);
	union bpf_attr attr = { .pathname = (uintptr_t)pin };
	int program = syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr));

	if (program < 0)
		die(pin);
	for (uint32_t index = 0; index < frame_count; index++) {
		actions[index] = 255;
		if (frames[index].length < ETH_HLEN)
			continue;
		memset(&attr, 0, sizeof(attr));
		attr.test.prog_fd = program;
		attr.test.data_in = (uintptr_t)frames[index].data;
		attr.test.data_size_in = frames[index].length;
		attr.test.repeat = 1;
		if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)) < 0) {
			/* Programs of tc are not run on frames that are too short for an IP header. */
			if (errno == EINVAL && frames[index].length < ETH_HLEN + sizeof(struct ip6_hdr))
				continue;
			die("BPF_PROG_TEST_RUN");
		}
		actions[index] = attr.test.retval;
	}
	write_all(actions, frame_count);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "send") == 0) {
		read_frames();
		send_frames(argv[2], argv[3]);
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "forget") == 0) {
		forget_connections(argv[2]);
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "run") == 0) {
		read_frames();
		run_program(argv[2]);
		return 0;
	}
	fprintf(stderr, "usage: kernel-lab send RECEIVER SENDER | forget RECEIVER | run PIN\n");
	return 2;
}
