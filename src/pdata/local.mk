# SPDX-License-Identifier: GPL-2.0-or-later
libpdata_a_SOURCES = \
	src/pdata/block_cache.c \
	src/pdata/block_cache.h \
	src/pdata/block_io.c \
	src/pdata/btree.c \
	src/pdata/btree.h \
	src/pdata/btree_insert.c \
	src/pdata/btree_node.c \
	src/pdata/btree_node.h \
	src/pdata/btree_remove.c \
	src/pdata/format.h \
	src/pdata/meta_commit.c \
	src/pdata/meta_format.c \
	src/pdata/meta_snap.c \
	src/pdata/sm_chunk.c \
	src/pdata/sm_chunk.h \
	src/pdata/sm_flush.c \
	src/pdata/sm_open.c \
	src/pdata/sm_reserve.c \
	src/pdata/space_map.c \
	src/pdata/space_map.h \
	src/pdata/space_map_internal.h \
	src/pdata/superblock.c \
	src/pdata/superblock.h \
	src/pdata/thin_dev.c \
	src/pdata/thin_map.c \
	src/pdata/thin_meta.c \
	src/pdata/thin_meta.h \
	src/pdata/thin_meta_internal.h \
	src/pdata/txn.c \
	src/pdata/txn.h
