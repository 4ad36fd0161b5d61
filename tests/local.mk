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
	tests/unit/util/test-crc32c \
	tests/unit/util/test-msg \
	tests/unit/util/test-runs \
	tests/unit/util/test-size \
	tests/unit/util/test-u64map

THREAD_TESTS =

MOUNT_TESTS = \
	tests/mount/cli.sh

INTEROP_TESTS =

HARNESS_TESTS = \
	tests/harness.sh

SHELL_TESTS = $(HARNESS_TESTS) $(MOUNT_TESTS) $(INTEROP_TESTS)

# The source of test-NAME is test-NAME.c. One that needs more lists all of it, below, as
#	tests_unit_FOLDER_test_NAME_SOURCES = tests/unit/FOLDER/test-NAME.c ...
# Headers and the like that several tests share:
SHARED_TEST_FILES = \
	tests/unit/io/image_model.h \
	tests/unit/random.h

LDADD = $(THINFS_LIBS) $(CRITERION_LIBS) $(EXTERNAL_LIBS)

if HAVE_CRITERION
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
else
# One skipped test in their place, so that the summary of 'make check' tells of it.
TESTS += tests/no-criterion.sh
endif

check_PROGRAMS += $(THREAD_TESTS)
dist_check_SCRIPTS += $(SHELL_TESTS) tests/no-criterion.sh
TESTS += $(THREAD_TESTS) $(SHELL_TESTS)

EXTRA_DIST += \
	$(SHARED_TEST_FILES) \
	$(UNIT_TESTS:=.c) \
	tests/data \
	tests/interop/fixtures.inc \
	tests/kernelvm \
	tests/lib.sh \
	tests/tools/dm-thin-audit.py \
	tests/tools/fixture.py

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

# 'make distcheck' that runs the quick tests only: whether the tarball builds, installs and cleans up is
# what it is about; the rest of the suite has been run before.
distcheck-light:
	$(MAKE) $(AM_MAKEFLAGS) distcheck TESTS='$(UNIT_TESTS) $(HARNESS_TESTS)'

.PHONY: check-mount check-unit distcheck-light
