# SPDX-License-Identifier: GPL-2.0-or-later
#
# Unit tests are Criterion programs: tests/unit/FOLDER/test-NAME.c proves src/FOLDER/NAME.c.
# Criterion cannot run under ThreadSanitizer, so tests that are about threads may instead be plain
# C programs NAME.t that print TAP. What needs the whole program is a shell script that prints TAP
# with the help of tests/lib.sh.

UNIT_TESTS = \
	tests/unit/io/test-fault-spec \
	tests/unit/io/test-image-fault \
	tests/unit/io/test-image-file \
	tests/unit/io/test-image-memory \
	tests/unit/pdata/test-block-cache \
	tests/unit/pdata/test-btree \
	tests/unit/pdata/test-btree-damage \
	tests/unit/pdata/test-check \
	tests/unit/pdata/test-check-cuts \
	tests/unit/pdata/test-evacuate \
	tests/unit/pdata/test-space-map \
	tests/unit/pdata/test-thin-exact \
	tests/unit/pdata/test-thin-meta \
	tests/unit/pdata/test-thin-meta-hostile \
	tests/unit/pdata/test-thin-meta-images \
	tests/unit/pdata/test-thin-meta-lies \
	tests/unit/pdata/test-thin-meta-model \
	tests/unit/pool/test-catalog-record \
	tests/unit/pool/test-pool-catalog-space \
	tests/unit/pool/test-pool-full \
	tests/unit/pool/test-pool-modes \
	tests/unit/pool/test-pool-origin \
	tests/unit/pool/test-pool-damage \
	tests/unit/pool/test-pool-discard \
	tests/unit/pool/test-pool-property \
	tests/unit/pool/test-pool-blocks \
	tests/unit/pool/test-pool-resize \
	tests/unit/pool/test-pool-scale \
	tests/unit/pool/test-pool-shrink \
	tests/unit/pool/test-pool-usage \
	tests/unit/pool/test-range-lock \
	tests/unit/util/test-crc32c \
	tests/unit/util/test-lock-order \
	tests/unit/util/test-msg \
	tests/unit/util/test-runs \
	tests/unit/util/test-size \
	tests/unit/util/test-u64map

THREAD_TESTS = \
	tests/unit/pool/test-pool-threads.t \
	tests/unit/util/test-duel.t \
	tests/unit/util/test-lockless.t

# In 'make check-threads' too: the daemon with all that may be asked of it at once.
THREAD_MOUNT_TESTS = tests/mount/load.sh

# Power cuts and failing disks, explored: a share in 'make check', much more in 'make check-crash'.
CRASH_TESTS = \
	tests/crash/explore.t \
	tests/crash/sweep.t
CRASH_SHELL_TESTS = \
	tests/crash/kill.sh

# What these scripts need.
CRASH_TOOLS = \
	tests/crash/load \
	tests/crash/thinfs-mutant

# The fuzz targets on kept inputs and some mutations of them; 'make fuzz' runs them with libFuzzer.
FUZZ_TESTS = \
	tests/fuzz/replay.t

MOUNT_TESTS = \
	tests/mount/accounting.sh \
	tests/mount/badinput.sh \
	tests/mount/bench.sh \
	tests/mount/cache.sh \
	tests/mount/check.sh \
	tests/mount/cli.sh \
	tests/mount/clone.sh \
	tests/mount/discard.sh \
	tests/mount/faults.sh \
	tests/mount/filesystems.sh \
	tests/mount/fio.sh \
	tests/mount/full.sh \
	tests/mount/hostfull.sh \
	tests/mount/load.sh \
	tests/mount/locking.sh \
	tests/mount/memory.sh \
	tests/mount/names.sh \
	tests/mount/nonroot.sh \
	tests/mount/order.sh \
	tests/mount/origin.sh \
	tests/mount/permissions.sh \
	tests/mount/promise.sh \
	tests/mount/reclaim.sh \
	tests/mount/residue.sh \
	tests/mount/resize.sh \
	tests/mount/scale.sh \
	tests/mount/shrink.sh \
	tests/mount/slowdisk.sh \
	tests/mount/snapshot.sh \
	tests/mount/space.sh \
	tests/mount/sparse.sh \
	tests/mount/term.sh \
	tests/mount/transport.sh

INTEROP_TESTS = \
	tests/interop/check.sh \
	tests/interop/fixtures-replay.sh \
	tests/interop/fixtures-ro.sh \
	tests/interop/fixtures-rw.sh \
	tests/interop/images.sh

# Run by 'make check-kernel' only: needs qemu, and downloads a kernel once.
KERNEL_TESTS = \
	tests/interop/kernel.sh \
	tests/interop/origin-kernel.sh

HARNESS_TESTS = \
	tests/harness.sh

SHELL_TESTS = $(HARNESS_TESTS) $(MOUNT_TESTS) $(INTEROP_TESTS) $(CRASH_SHELL_TESTS)

# The source of test-NAME is test-NAME.c. One that needs more lists all of it, below, as
#	tests_unit_FOLDER_test_NAME_SOURCES = tests/unit/FOLDER/test-NAME.c ...
# Headers and the like that several tests share:
SHARED_TEST_FILES = \
	tests/unit/damage.h \
	tests/unit/io/image_model.h \
	tests/unit/pdata/meta_fixture.h \
	tests/unit/random.h \
	tests/unit/scratch.h

# The checkers, and images that outlive a pool.
AUDIT_FILES = \
	tests/unit/audit.c \
	tests/unit/audit.h \
	tests/unit/kept_image.c \
	tests/unit/kept_image.h

# Their own transaction manager, over an array.
tests_unit_pdata_test_btree_SOURCES = \
	tests/unit/pdata/btree_model.c \
	tests/unit/pdata/btree_model.h \
	tests/unit/pdata/fake_txn.c \
	tests/unit/pdata/fake_txn.h \
	tests/unit/pdata/test-btree.c
tests_unit_pdata_test_btree_damage_SOURCES = \
	tests/unit/pdata/btree_model.c \
	tests/unit/pdata/btree_model.h \
	tests/unit/pdata/fake_txn.c \
	tests/unit/pdata/fake_txn.h \
	tests/unit/pdata/test-btree-damage.c
CHECK_FIXTURE = \
	tests/unit/pdata/check_fixture.c \
	tests/unit/pdata/check_fixture.h \
	$(AUDIT_FILES)
tests_unit_pdata_test_check_SOURCES = tests/unit/pdata/test-check.c $(CHECK_FIXTURE)
tests_unit_pdata_test_check_cuts_SOURCES = tests/unit/pdata/test-check-cuts.c $(CHECK_FIXTURE)
tests_unit_pdata_test_thin_exact_SOURCES = tests/unit/pdata/test-thin-exact.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_SOURCES = tests/unit/pdata/test-thin-meta.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_hostile_SOURCES = tests/unit/pdata/test-thin-meta-hostile.c $(AUDIT_FILES)
tests_unit_pdata_test_evacuate_SOURCES = tests/unit/pdata/test-evacuate.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_images_SOURCES = tests/unit/pdata/test-thin-meta-images.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_lies_SOURCES = tests/unit/pdata/test-thin-meta-lies.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_model_SOURCES = tests/unit/pdata/test-thin-meta-model.c $(AUDIT_FILES)
tests_unit_pool_test_pool_catalog_space_SOURCES = tests/unit/pool/test-pool-catalog-space.c $(AUDIT_FILES)
# The linker puts functions of the test between the engine's own.
tests_unit_pool_test_pool_catalog_space_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=catalog_prepare,--wrap=pool_begin_change,--wrap=reclaim_queue
tests_unit_pool_test_pool_modes_SOURCES = tests/unit/pool/test-pool-modes.c $(AUDIT_FILES)
tests_unit_pool_test_pool_origin_SOURCES = tests/unit/pool/test-pool-origin.c $(AUDIT_FILES)
tests_unit_pool_test_pool_full_SOURCES = tests/unit/pool/test-pool-full.c $(AUDIT_FILES)
tests_unit_pool_test_pool_blocks_SOURCES = tests/unit/pool/test-pool-blocks.c $(AUDIT_FILES)
tests_unit_pool_test_pool_discard_SOURCES = tests/unit/pool/test-pool-discard.c $(AUDIT_FILES)
tests_unit_pool_test_pool_damage_SOURCES = \
	tests/unit/kept_image.c \
	tests/unit/kept_image.h \
	tests/unit/pool/test-pool-damage.c
# Random operations on a pool, and the model that they are compared with.
PROPERTY_FILES = \
	tests/unit/pool/model.c \
	tests/unit/pool/model.h \
	tests/unit/pool/property.c \
	tests/unit/pool/property.h \
	tests/unit/pool/property_data.c \
	tests/unit/pool/property_names.c \
	tests/unit/pool/property_ops.c \
	tests/unit/pool/property_ops.h \
	tests/unit/pool/property_snapshots.c \
	$(AUDIT_FILES)
tests_unit_pool_test_pool_property_SOURCES = tests/unit/pool/test-pool-property.c $(PROPERTY_FILES)
tests_unit_pool_test_pool_resize_SOURCES = tests/unit/pool/test-pool-resize.c $(PROPERTY_FILES)
tests_unit_pool_test_pool_resize_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=meta_durable
tests_unit_pool_test_pool_shrink_SOURCES = tests/unit/pool/test-pool-shrink.c tests/unit/pool/shrink.h $(AUDIT_FILES)
tests_unit_pool_test_pool_shrink_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=meta_durable,--wrap=pool_copy_data,--wrap=pool_end_change
tests_unit_pool_test_pool_scale_SOURCES = tests/unit/pool/test-pool-scale.c $(AUDIT_FILES)
tests_unit_pool_test_pool_threads_t_SOURCES = \
	tests/unit/pool/test-pool-threads.c \
	tests/unit/pool/threads.h \
	tests/unit/pool/threads_data.c \
	tests/unit/pool/threads_names.c \
	tests/unit/pool/threads_share.c \
	tests/unit/pool/threads_snapshots.c \
	$(AUDIT_FILES)
tests_unit_pool_test_pool_threads_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_unit_util_test_duel_t_SOURCES = tests/unit/util/test-duel.c
tests_unit_util_test_duel_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_unit_util_test_lockless_t_SOURCES = tests/unit/util/test-lockless.c
tests_unit_util_test_lockless_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)

# What 'make bench' measures against, thinfs on a disk whose flush is slow, and the engine alone.
BENCH_TOOLS = \
	tests/bench/engine \
	tests/bench/floor \
	tests/bench/thinfs-slow

tests_bench_engine_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_bench_floor_SOURCES = tests/bench/floor.c tests/bench/slow_flush.c
tests_bench_floor_LDADD = $(FUSE_LIBS)
tests_bench_floor_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fdatasync
tests_bench_thinfs_slow_SOURCES = $(thinfs_SOURCES) tests/bench/slow_flush.c
tests_bench_thinfs_slow_LDADD = $(thinfs_LDADD)
tests_bench_thinfs_slow_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fdatasync

CRASH_FILES = \
	tests/crash/beside.c \
	tests/crash/check.c \
	tests/crash/check.h \
	tests/crash/disks.c \
	tests/crash/disks.h \
	tests/crash/external.c \
	tests/crash/external.h \
	tests/crash/oracle.c \
	tests/crash/oracle.h \
	tests/crash/oracle_check.c \
	tests/crash/oracle_internal.h \
	tests/crash/overlay.c \
	tests/crash/overlay.h \
	tests/crash/states.c \
	tests/crash/states.h \
	tests/crash/workload.c \
	tests/crash/workload.h \
	tests/crash/workload_data.c \
	tests/crash/workload_names.c \
	tests/crash/workload_ops.h \
	$(AUDIT_FILES)

# The linker puts functions of workload.c, beside.c and mutant.c in the place of some of ours: to come between the steps of an
# operation, and to be wrong when they are told to.
WRAP_BETWEEN = $(AM_LDFLAGS) -Wl,--wrap=pool_end_change,--wrap=data_flush_begin,--wrap=data_flush_end
WRAP_MUTANTS = -Wl,--wrap=sm_dec,--wrap=meta_confirm,--wrap=dev_share,--wrap=snapshot_take_one \
	-Wl,--wrap=pool_revert,--wrap=passdown_queue,--wrap=reclaim_queue,--wrap=vol_origin_lower \
	-Wl,--wrap=dev_map_all_to,--wrap=zero_block_check
tests_crash_explore_t_SOURCES = \
	tests/crash/explore.c \
	tests/crash/mutant.c \
	tests/crash/mutant.h \
	$(CRASH_FILES)
tests_crash_explore_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_crash_explore_t_LDFLAGS = $(WRAP_BETWEEN) $(WRAP_MUTANTS)
tests_crash_sweep_t_SOURCES = tests/crash/sweep.c $(CRASH_FILES)
tests_crash_sweep_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_crash_sweep_t_LDFLAGS = $(WRAP_BETWEEN)
tests_crash_load_SOURCES = \
	tests/crash/ledger.c \
	tests/crash/ledger.h \
	tests/crash/load.c \
	tests/crash/load.h \
	tests/crash/load_check.c \
	tests/crash/load_copies.c \
	tests/crash/load_files.c \
	tests/crash/load_snaps.c \
	tests/crash/load_worker.h \
	tests/crash/sector.h
tests_crash_load_LDADD =
tests_crash_thinfs_mutant_SOURCES = $(thinfs_SOURCES) \
	tests/crash/mutant.c \
	tests/crash/mutant.h \
	tests/crash/mutant_daemon.c
tests_crash_thinfs_mutant_LDADD = $(thinfs_LDADD)
tests_crash_thinfs_mutant_LDFLAGS = $(AM_LDFLAGS) $(WRAP_MUTANTS) -Wl,--wrap=pool_sync,--wrap=range_lock

# Sources of src/cmd that read what others wrote; target_json.c stands in for src/cmd/target.c.
FUZZ_FILES = \
	src/cmd/common.c \
	src/cmd/list.c \
	src/cmd/mount_options.c \
	src/cmd/report.c \
	src/cmd/status.c \
	src/fuse/transport_name.c \
	tests/fuzz/cow_image.c \
	tests/fuzz/cow_image.h \
	tests/fuzz/edits.c \
	tests/fuzz/edits.h \
	tests/fuzz/fuzz.c \
	tests/fuzz/fuzz.h \
	tests/fuzz/seeds.c \
	tests/fuzz/seeds.h \
	tests/fuzz/target_btree.c \
	tests/fuzz/target_check.c \
	tests/fuzz/target_json.c \
	tests/fuzz/target_meta.c \
	tests/fuzz/target_meta.h \
	tests/fuzz/target_options.c \
	tests/fuzz/target_pool.c \
	tests/fuzz/target_record.c \
	tests/fuzz/target_size.c \
	tests/fuzz/target_spacemap.c \
	tests/fuzz/target_superblock.c

tests_fuzz_replay_t_SOURCES = tests/fuzz/replay.c $(FUZZ_FILES)
tests_fuzz_replay_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)

LDADD = $(THINFS_LIBS) $(CRITERION_LIBS) $(EXTERNAL_LIBS)

if HAVE_CRITERION
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
# Random operations against a model, of which 'make check-crash' has ten times as many.
PROPERTY_TESTS = tests/unit/pool/test-pool-property
else
# One skipped test in their place, so that the summary of 'make check' tells of it.
TESTS += tests/no-criterion.sh
endif

check_PROGRAMS += $(BENCH_TOOLS) $(CRASH_TESTS) $(CRASH_TOOLS) $(FUZZ_TESTS) $(THREAD_TESTS)
dist_check_SCRIPTS += $(KERNEL_TESTS) $(SHELL_TESTS) tests/no-criterion.sh
TESTS += $(CRASH_TESTS) $(FUZZ_TESTS) $(THREAD_TESTS) $(SHELL_TESTS)

EXTRA_DIST += \
	$(SHARED_TEST_FILES) \
	$(UNIT_TESTS:=.c) \
	tests/bench/bench.py \
	tests/bench/goals.py \
	tests/bench/jobs.py \
	tests/bench/measure.py \
	tests/bench/place.sh \
	tests/bench/report.py \
	tests/bench/run \
	tests/bench/targets.py \
	tests/data \
	tests/fuzz/corpus \
	tests/fuzz/libfuzzer.c \
	tests/fuzz/regressions \
	tests/fuzz/run \
	tests/interop/fixtures.inc \
	tests/kernelvm \
	tests/lib.sh \
	tests/tools/all_over.py \
	tests/tools/check-agrees.py \
	tests/tools/check-order.py \
	tests/tools/copy_range.py \
	tests/tools/damage.py \
	tests/tools/devices.py \
	tests/tools/dm-thin-audit.py \
	tests/tools/fixture.py \
	tests/tools/holes.py \
	tests/tools/names.py \
	tests/tools/residue.py \
	tests/tools/snapshots.py \
	tests/tools/sync_rate.py \
	tests/tools/without.py

TEST_EXTENSIONS = .t .sh
TAP_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
LOG_DRIVER = $(TAP_DRIVER)
LOG_COMPILER = $(SHELL) $(top_srcdir)/build-aux/criterion-tap.sh
T_LOG_DRIVER = $(TAP_DRIVER) --merge
SH_LOG_DRIVER = $(TAP_DRIVER) --merge
SH_LOG_COMPILER = bash

AM_TESTS_ENVIRONMENT = \
	THINFS='$(abs_top_builddir)/thinfs'; export THINFS; \
	top_srcdir='$(abs_top_srcdir)'; export top_srcdir; \
	top_builddir='$(abs_top_builddir)'; export top_builddir;

# Parts of 'make check'.
check-unit: all-am
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(UNIT_TESTS)'

check-mount: all-am
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(MOUNT_TESTS) $(INTEROP_TESTS)'

check-threads: all-am
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(THREAD_TESTS) $(THREAD_MOUNT_TESTS)'

check-kernel: all-am
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(KERNEL_TESTS)'

check-crash: all-am
	THINFS_CRASH_ALL=1 $(MAKE) $(AM_MAKEFLAGS) check-TESTS \
		TESTS='$(CRASH_TESTS) $(PROPERTY_TESTS) $(CRASH_SHELL_TESTS)'
	sed -n 's/^# \([0-9]* distinct\|[0-9]* runs\|[0-9]* kills\|[0-9]* operations\|[a-z].* found after\)/&/p' \
		$(CRASH_TESTS:.t=.log) $(CRASH_SHELL_TESTS:.sh=.log)

# BENCH_JOBS and others say what and how long: tests/bench/run.
bench: all-am $(BENCH_TOOLS)
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash $(top_srcdir)/tests/bench/run

# FUZZ_RUNS, FUZZ_SECONDS and others bound it: tests/fuzz/run.
fuzz: all-am
	@test -n '$(FUZZ_CC)' || { \
		echo "'make fuzz' needs clang with libFuzzer: install clang and libclang-rt-14-dev, then run configure again"; \
		exit 1; }
	top_srcdir='$(abs_top_srcdir)' FUZZ_CC='$(FUZZ_CC)' \
		FUZZ_FLAGS='$(DEFS) $(DEFAULT_INCLUDES) $(AM_CPPFLAGS) $(CPPFLAGS)' FUZZ_LIBS='$(EXTERNAL_LIBS)' \
		FUZZ_SOURCES='$(libutil_a_SOURCES) $(libio_a_SOURCES) $(libpdata_a_SOURCES) $(libpool_a_SOURCES) $(FUZZ_FILES)' \
		bash $(top_srcdir)/tests/fuzz/run

clean-local:
	-rm -rf fuzz-build fuzz-found
	-rm -f bench.json bench.svg bench.txt

distclean-local:
	-rm -rf fuzz-corpus

# 'make distcheck' that runs the quick tests only: whether the tarball builds, installs and cleans up is
# what it is about; the rest of the suite has been run before.
distcheck-light:
	$(MAKE) $(AM_MAKEFLAGS) distcheck TESTS='$(UNIT_TESTS) $(HARNESS_TESTS)'

.PHONY: bench fuzz check-crash check-kernel check-mount check-threads check-unit distcheck-light
