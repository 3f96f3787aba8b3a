/* Reads classic BPF programs as `tcpdump -ddd` prints them. */
#include <errno.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static struct sock_fprog read_program(const char *path)
{
	struct sock_filter *insns = calloc(BPF_MAXINSNS, sizeof(*insns));
	unsigned int count, code, jt, jf, k;
	FILE *file = fopen(path, "r");

	if (!file || !insns || fscanf(file, "%u", &count) != 1 || count > BPF_MAXINSNS)
		die(path);
	for (unsigned int i = 0; i < count; i++) {
		if (fscanf(file, "%u %u %u %u", &code, &jt, &jf, &k) != 4)
			die(path);
		insns[i] = (struct sock_filter){ code, jt, jf, k };
	}
	fclose(file);
	return (struct sock_fprog){ count, insns };
}
