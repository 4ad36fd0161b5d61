/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/msg.h"

static char caught[8192];

static void
catch_message(const char *text)
{
	snprintf(caught, sizeof(caught), "%s", text);
}

Test(msg, a_sink_sees_the_severity_in_front_and_no_newline)
{
	msg_set_sink(catch_message);
	msg_error("%s: %d", "meta.img", 5);
	cr_assert_str_eq(caught, "error: meta.img: 5");
	msg_warn("low");
	cr_assert_str_eq(caught, "warning: low");
	msg_info("ready");
	cr_assert_str_eq(caught, "ready");
	msg_set_sink(NULL);
}

Test(msg, too_long_a_message_is_cut)
{
	static char text[6000];

	memset(text, 'x', sizeof(text) - 1);
	msg_set_sink(catch_message);
	msg_info("%s", text);
	cr_assert_gt(strlen(caught), 4000);
	cr_assert_lt(strlen(caught), 4096);
	msg_set_sink(NULL);
}

/* Send standard error to a pipe; returns what is to be given to end_capture(). */
static int
begin_capture(int *reader)
{
	int saved = dup(STDERR_FILENO);
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	*reader = fds[0];
	return saved;
}

static void
end_capture(int saved)
{
	dup2(saved, STDERR_FILENO);
	close(saved);
}

Test(msg, standard_error_gets_one_line_with_the_name_of_the_program)
{
	char buf[256] = "";
	int reader, saved = begin_capture(&reader);
	ssize_t n;

	msg_error("no such volume");
	end_capture(saved);
	n = read(reader, buf, sizeof(buf) - 1);
	close(reader);
	cr_assert_gt(n, 0);
	cr_assert_str_eq(buf, "thinfs: error: no such volume\n");
}

#define NR_THREADS 4
#define NR_LINES 50

static void *
talk(void *arg)
{
	for (int i = 0; i < NR_LINES; i++)
		msg_info("%s", (const char *)arg);
	return NULL;
}

Test(msg, lines_of_threads_do_not_mix)
{
	const char *words[NR_THREADS] = {"aaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbb", "cccc", "dd"};
	pthread_t threads[NR_THREADS];
	int reader, saved = begin_capture(&reader);
	int counts[NR_THREADS] = {0};
	char line[256];
	FILE *f;

	for (int i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, talk, (void *)words[i]);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	end_capture(saved);

	f = fdopen(reader, "r");
	while (fgets(line, sizeof(line), f)) {
		char want[64];
		int i;

		for (i = 0; i < NR_THREADS; i++) {
			snprintf(want, sizeof(want), "thinfs: %s\n", words[i]);
			if (!strcmp(line, want))
				break;
		}
		cr_assert_lt(i, NR_THREADS, "%s", line);
		counts[i]++;
	}
	fclose(f);
	for (int i = 0; i < NR_THREADS; i++)
		cr_assert_eq(counts[i], NR_LINES);
}
