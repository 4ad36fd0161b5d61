# SPDX-License-Identifier: GPL-2.0-or-later
#
# Unit tests are Criterion programs: tests/unit/FOLDER/test-NAME.c proves src/FOLDER/NAME.c.
# Criterion cannot run under ThreadSanitizer, so tests that are about threads may instead be plain
# C programs NAME.t that print TAP. What needs the whole program is a shell script that prints TAP
# with the help of tests/lib.sh.

UNIT_TESTS = \
	tests/unit/io/test-image-fault \
	tests/unit/io/test-image-file \
	tests/unit/io/test-image-memory \
	tests/unit/pdata/test-block-cache \
	tests/unit/pdata/test-btree \
	tests/unit/pdata/test-btree-damage \
	tests/unit/pdata/test-space-map \
	tests/unit/pdata/test-thin-meta \
	tests/unit/pdata/test-thin-meta-hostile \
	tests/unit/pdata/test-thin-meta-images \
	tests/unit/pdata/test-thin-meta-model \
	tests/unit/pool/test-catalog-record \
	tests/unit/pool/test-pool-property \
	tests/unit/pool/test-range-lock \
	tests/unit/util/test-crc32c \
	tests/unit/util/test-msg \
	tests/unit/util/test-runs \
	tests/unit/util/test-size \
	tests/unit/util/test-u64map

THREAD_TESTS = \
	tests/unit/pool/test-pool-threads.t

# Power cuts and failing disks, explored: a share in 'make check', much more in 'make check-crash'.
CRASH_TESTS = \
	tests/crash/explore.t \
	tests/crash/sweep.t

MOUNT_TESTS = \
	tests/mount/badinput.sh \
	tests/mount/cli.sh \
	tests/mount/filesystems.sh \
	tests/mount/fio.sh \
	tests/mount/order.sh \
	tests/mount/scale.sh \
	tests/mount/snapshot.sh

INTEROP_TESTS = \
	tests/interop/fixtures-replay.sh \
	tests/interop/fixtures-ro.sh \
	tests/interop/fixtures-rw.sh \
	tests/interop/images.sh

# Run by 'make check-kernel' only: needs qemu, and downloads a kernel once.
KERNEL_TESTS = \
	tests/interop/kernel.sh

HARNESS_TESTS = \
	tests/harness.sh

SHELL_TESTS = $(HARNESS_TESTS) $(MOUNT_TESTS) $(INTEROP_TESTS)

# The source of test-NAME is test-NAME.c. One that needs more lists all of it, below, as
#	tests_unit_FOLDER_test_NAME_SOURCES = tests/unit/FOLDER/test-NAME.c ...
# Headers and the like that several tests share:
SHARED_TEST_FILES = \
	tests/unit/io/image_model.h \
	tests/unit/pdata/meta_fixture.h \
	tests/unit/random.h

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
tests_unit_pdata_test_thin_meta_SOURCES = tests/unit/pdata/test-thin-meta.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_hostile_SOURCES = tests/unit/pdata/test-thin-meta-hostile.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_images_SOURCES = tests/unit/pdata/test-thin-meta-images.c $(AUDIT_FILES)
tests_unit_pdata_test_thin_meta_model_SOURCES = tests/unit/pdata/test-thin-meta-model.c $(AUDIT_FILES)
tests_unit_pool_test_pool_property_SOURCES = \
	tests/unit/pool/model.c \
	tests/unit/pool/model.h \
	tests/unit/pool/property.c \
	tests/unit/pool/property.h \
	tests/unit/pool/property_ops.c \
	tests/unit/pool/test-pool-property.c \
	$(AUDIT_FILES)
tests_unit_pool_test_pool_threads_t_SOURCES = tests/unit/pool/test-pool-threads.c $(AUDIT_FILES)
tests_unit_pool_test_pool_threads_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)

CRASH_FILES = \
	tests/crash/check.c \
	tests/crash/check.h \
	tests/crash/disks.c \
	tests/crash/disks.h \
	tests/crash/oracle.c \
	tests/crash/oracle.h \
	tests/crash/overlay.c \
	tests/crash/overlay.h \
	tests/crash/states.c \
	tests/crash/states.h \
	tests/crash/workload.c \
	tests/crash/workload.h \
	$(AUDIT_FILES)

# The linker puts functions of mutant.c in the place of two of ours, to be wrong when they are told to.
tests_crash_explore_t_SOURCES = \
	tests/crash/explore.c \
	tests/crash/mutant.c \
	tests/crash/mutant.h \
	$(CRASH_FILES)
tests_crash_explore_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)
tests_crash_explore_t_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=sm_dec,--wrap=meta_confirm
tests_crash_sweep_t_SOURCES = tests/crash/sweep.c $(CRASH_FILES)
tests_crash_sweep_t_LDADD = $(THINFS_LIBS) $(EXTERNAL_LIBS)

LDADD = $(THINFS_LIBS) $(CRITERION_LIBS) $(EXTERNAL_LIBS)

if HAVE_CRITERION
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
else
# One skipped test in their place, so that the summary of 'make check' tells of it.
TESTS += tests/no-criterion.sh
endif

check_PROGRAMS += $(CRASH_TESTS) $(THREAD_TESTS)
dist_check_SCRIPTS += $(KERNEL_TESTS) $(SHELL_TESTS) tests/no-criterion.sh
TESTS += $(CRASH_TESTS) $(THREAD_TESTS) $(SHELL_TESTS)

EXTRA_DIST += \
	$(SHARED_TEST_FILES) \
	$(UNIT_TESTS:=.c) \
	tests/data \
	tests/interop/fixtures.inc \
	tests/kernelvm \
	tests/lib.sh \
	tests/tools/check-order.py \
	tests/tools/damage.py \
	tests/tools/devices.py \
	tests/tools/dm-thin-audit.py \
	tests/tools/fixture.py \
	tests/tools/snapshots.py

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
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(THREAD_TESTS)'

check-kernel: all-am
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(KERNEL_TESTS)'

check-crash: all-am
	THINFS_CRASH_ALL=1 $(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(CRASH_TESTS)'
	sed -n 's/^# \([0-9]* distinct\|[0-9]* runs\|[a-z].* found after\)/&/p' $(CRASH_TESTS:.t=.log)

# 'make distcheck' that runs the quick tests only: whether the tarball builds, installs and cleans up is
# what it is about; the rest of the suite has been run before.
distcheck-light:
	$(MAKE) $(AM_MAKEFLAGS) distcheck TESTS='$(UNIT_TESTS) $(HARNESS_TESTS)'

.PHONY: check-crash check-kernel check-mount check-threads check-unit distcheck-light
