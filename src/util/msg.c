/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "util/msg.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* Longer messages are cut: a name may be that long, no sentence of ours is. */
#define MSG_MAX 4096

static const struct severity {
	const char *word;
	int syslog_priority;
} severities[] = {
	{"error: ", LOG_ERR},
	{"warning: ", LOG_WARNING},
	{"", LOG_INFO},
};

enum { MSG_ERROR, MSG_WARN, MSG_INFO };

static _Atomic(void (*)(const char *)) msg_sink;
static atomic_bool use_syslog;

/* One write, so that lines of threads and of other processes do not mix. */
static void
write_stderr(char *line, size_t len)
{
	ssize_t n;

	line[len++] = '\n';
	while (len) {
		n = write(STDERR_FILENO, line, len);
		if (n <= 0)
			return; /* nowhere left to tell it */
		line += n;
		len -= (size_t)n;
	}
}

static void __attribute__((format(printf, 2, 0)))
msg_send(int severity, const char *fmt, va_list ap)
{
	static const char prefix[] = "thinfs: ";
	const struct severity *s = &severities[severity];
	void (*sink)(const char *) = atomic_load(&msg_sink);
	char line[MSG_MAX + 1]; /* and the newline */
	size_t start = sizeof(prefix) - 1;
	size_t len;
	int n;

	memcpy(line, prefix, sizeof(prefix));
	strcpy(line + start, s->word);
	len = start + strlen(s->word);
	n = vsnprintf(line + len, MSG_MAX - len, fmt, ap);
	if (n < 0)
		return;
	len += strlen(line + len);

	if (sink)
		sink(line + start);
	else if (atomic_load(&use_syslog))
		syslog(s->syslog_priority, "%s", line + start);
	else
		write_stderr(line, len);
}

void
msg_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	msg_send(MSG_ERROR, fmt, ap);
	va_end(ap);
}

void
msg_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	msg_send(MSG_WARN, fmt, ap);
	va_end(ap);
}

void
msg_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	msg_send(MSG_INFO, fmt, ap);
	va_end(ap);
}

void
msg_to_syslog(void)
{
	openlog("thinfs", LOG_PID, LOG_DAEMON);
	atomic_store(&use_syslog, true);
}

void
msg_set_sink(void (*fn)(const char *text))
{
	atomic_store(&msg_sink, fn);
}
