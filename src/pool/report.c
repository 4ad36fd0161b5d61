/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool_internal.h"
#include "pool/report.h"

json_t *
report_text(const char *bytes)
{
	json_t *text = json_string(bytes);
	char *utf8;
	size_t n = 0;

	if (text)
		return text;
	utf8 = malloc(2 * strlen(bytes) + 1);
	for (const char *c = bytes; utf8 && *c; c++) {
		unsigned char b = (unsigned char)*c;

		if (b >= 0x80) {
			utf8[n++] = (char)(0xC0 | b >> 6);
			utf8[n++] = (char)(0x80 | (b & 0x3F));
		} else {
			utf8[n++] = *c;
		}
	}
	text = utf8 ? json_stringn(utf8, n) : NULL;
	free(utf8);
	return text;
}

static json_t *
json_path(const char *name, const char *snapshot)
{
	char path[sizeof(SNAPSHOTS_DIR) + 2 * RECORD_NAME_SIZE + 2];

	if (!snapshot[0])
		return report_text(name);
	snprintf(path, sizeof(path), "%s/%s/%s", SNAPSHOTS_DIR, snapshot, name);
	return report_text(path);
}

static json_t *
json_time(struct timespec ts)
{
	struct tm tm;
	char text[64];

	if (!ts.tv_sec)
		return json_null();
	gmtime_r(&ts.tv_sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static json_t *
report_volume(struct vol *v)
{
	char name[RECORD_NAME_SIZE], snapshot[RECORD_NAME_SIZE];
	uint64_t exclusive;
	struct vol_attr a;

	if (vol_getattr(v, &a) || vol_exclusive(v, &exclusive))
		return NULL;
	if (exclusive > a.mapped_bytes) /* it grew meanwhile */
		exclusive = a.mapped_bytes;
	vol_get_name(v, name, snapshot);
	return json_pack("{s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:b, s:o, s:o, s:I, s:I, s:I, s:o, s:I}",
			 "id", (json_int_t)a.id,
			 "path", json_path(name, snapshot),
			 "name", report_text(name),
			 "snapshot", snapshot[0] ? report_text(snapshot) : json_null(),
			 "size", (json_int_t)a.size,
			 "mapped", (json_int_t)a.mapped_bytes,
			 "exclusive", (json_int_t)exclusive,
			 "shared", (json_int_t)(a.mapped_bytes - exclusive),
			 "parent", a.has_parent ? json_integer(a.parent) : json_null(),
			 "read_only", a.read_only,
			 "created", json_time(a.btime),
			 "modified", json_time(a.mtime),
			 "mode", (json_int_t)a.mode,
			 "uid", (json_int_t)a.uid,
			 "gid", (json_int_t)a.gid,
			 "origin", a.origin ? report_text(a.origin) : json_null(),
			 "origin_size", (json_int_t)a.origin_size);
}

static int
append_dir(struct pool *p, struct voldir *dir, json_t *devices)
{
	uint64_t cookie = 0;
	struct vol *v;
	int r = 0;

	while (!r && !pool_next_volume(p, dir, cookie, &v, &cookie)) {
		json_t *one = report_volume(v);

		/* One that has gone meanwhile is not there. */
		if (one)
			r = json_array_append_new(devices, one);
		vol_put(v);
	}
	return r;
}

static bool
may_list(const struct pool_caller *reader, struct voldir *d)
{
	struct voldir_attr a;

	if (!reader || reader->uid == 0)
		return true;
	voldir_getattr(d, &a);
	if (reader->uid == a.uid)
		return a.mode & 0400;
	if (reader->gid == a.gid)
		return a.mode & 0040;
	return (a.mode & 0044) == 0044; /* may be of that group by another one of theirs */
}

json_t *
report_list_for(struct pool *p, const struct pool_caller *reader)
{
	json_t *devices = json_array();
	uint64_t cookie = 0;
	struct voldir *d;
	int r = devices ? append_dir(p, pool_top(p), devices) : -1;

	while (!r && !pool_next_snapshot(p, cookie, &d, &cookie)) {
		if (may_list(reader, d))
			r = append_dir(p, d, devices);
		voldir_put(d);
	}
	if (r) {
		json_decref(devices);
		return NULL;
	}
	return json_pack("{s:o}", "devices", devices);
}

json_t *
report_list(struct pool *p)
{
	return report_list_for(p, NULL);
}

/* The line that `dmsetup status` would print: the format sheet, S 13.3. */
static json_t *
status_line(struct pool *p, const struct pool_status *st)
{
	char held[24] = "-", line[256];
	uint64_t sectors = st->data_blocks * (st->block_bytes / SECTOR_SIZE);
	uint64_t low_water = st->meta_blocks / 4 < 1024 ? st->meta_blocks / 4 : 1024;
	const char *mode = st->mode == POOL_WRITE	       ? "rw"
			   : st->mode == POOL_OUT_OF_DATA_SPACE ? "out_of_data_space" : "ro";
	uint64_t used = st->meta_used + st->meta_reserve;

	if (st->mode == POOL_FAIL) {
		snprintf(line, sizeof(line), "0 %" PRIu64 " thin-pool Fail", sectors);
		return json_string(line);
	}
	if (used > st->meta_blocks)
		used = st->meta_blocks;
	if (st->held_root)
		snprintf(held, sizeof(held), "%" PRIu64, st->held_root);
	snprintf(line, sizeof(line),
		 "0 %" PRIu64 " thin-pool %" PRIu64 " %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64
		 " %s %s %s %s %s %" PRIu64 " ",
		 sectors, st->transaction_id, used, st->meta_blocks, st->data_used,
		 st->data_blocks, held, mode,
		 p->options.ignore_discard	   ? "ignore_discard"
		 : p->options.no_discard_passdown ? "no_discard_passdown" : "discard_passdown",
		 pool_waits_for_space(p) ? "queue_if_no_space" : "error_if_no_space",
		 st->needs_check ? "needs_check" : "-", low_water);
	return json_string(line);
}

json_t *
report_status(struct pool *p)
{
	struct pool_reclaim reclaim;
	struct pool_status st;
	uint64_t block;

	pool_get_status(p, &st);
	pool_get_reclaim(p, &reclaim);
	block = st.block_bytes;
	return json_pack("{s:s, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:b, s:o,"
			 " s:I, s:I, s:s, s:s, s:o}",
			 "mode", pool_mode_name(st.mode),
			 "transaction", (json_int_t)st.transaction_id,
			 "block_size", (json_int_t)block,
			 "data",
			 "total", (json_int_t)(st.data_blocks * block),
			 "used", (json_int_t)(st.data_used * block),
			 "available", (json_int_t)(st.data_available * block),
			 "low_water", (json_int_t)(st.data_low_water * block),
			 "metadata",
			 "total", (json_int_t)(st.meta_blocks * METADATA_BLOCK_SIZE),
			 "used", (json_int_t)(st.meta_used * METADATA_BLOCK_SIZE),
			 "reserve", (json_int_t)(st.meta_reserve * METADATA_BLOCK_SIZE),
			 "reclaim",
			 "volumes", (json_int_t)reclaim.nr_volumes,
			 "open", (json_int_t)reclaim.nr_open,
			 "bytes", (json_int_t)reclaim.bytes,
			 "needs_check", st.needs_check,
			 "held_root", st.held_root ? json_integer((json_int_t)st.held_root)
						   : json_null(),
			 "volumes", (json_int_t)st.nr_volumes,
			 "snapshots", (json_int_t)st.nr_snapshots,
			 "data_image", p->data->name,
			 "metadata_image", p->meta->name,
			 "status_line", status_line(p, &st));
}
