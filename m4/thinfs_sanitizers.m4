dnl SPDX-License-Identifier: GPL-2.0-or-later
dnl
dnl THINFS_SANITIZERS: --enable-sanitizers[=LIST], LIST as gcc's -fsanitize= takes it.
dnl Sets SAN_CFLAGS (to be given to the compiler and to the linker) and thinfs_sanitizers, the
dnl list or "no".
AC_DEFUN([THINFS_SANITIZERS], [
	AC_ARG_ENABLE([sanitizers],
		[AS_HELP_STRING([--enable-sanitizers@<:@=LIST@:>@],
			[build with run-time checks: "address,undefined" (default LIST) or "thread"])],
		[thinfs_sanitizers=$enableval], [thinfs_sanitizers=no])
	AS_IF([test "x$thinfs_sanitizers" = xyes], [thinfs_sanitizers=address,undefined])
	SAN_CFLAGS=
	AS_IF([test "x$thinfs_sanitizers" != xno], [
		SAN_CFLAGS="-fsanitize=$thinfs_sanitizers -fno-sanitize-recover=all"
		SAN_CFLAGS="$SAN_CFLAGS -fno-omit-frame-pointer"
		AX_CHECK_LINK_FLAG([$SAN_CFLAGS], [], [
			AC_MSG_ERROR([the compiler cannot build with -fsanitize=$thinfs_sanitizers])
		])
	])
	AC_SUBST([SAN_CFLAGS])
])
