/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * msg: one-line messages to whoever runs thinfs.
 *
 * A message says what was attempted, on what, why it failed and what to do. The place that knows
 * says it, once; callers above only pass the error on.
 *
 * Messages go to stderr as "thinfs: TEXT"; a daemon that has left its terminal sends them to
 * syslog instead (msg_to_syslog). Threads may call all of these at the same time.
 */
#ifndef THINFS_UTIL_MSG_H
#define THINFS_UTIL_MSG_H

void msg_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void msg_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void msg_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Send what follows to syslog, facility daemon, instead of stderr. */
void msg_to_syslog(void);

/*
 * Give each message (severity word already in front, no newline) to FN instead; NULL restores
 * stderr. For tests, which want to see or to silence messages.
 */
void msg_set_sink(void (*fn)(const char *text));

#endif
