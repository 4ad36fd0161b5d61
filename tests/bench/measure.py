# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking one sample: a run of fio, or an operation that is timed."""
import json
import os
import random
import time

import targets
from targets import MAPPED_SIZE, THINFS, Beside, run

CPUCLOCK_SCHED = 2


def cpu_seconds(pid):
    """What a process has used, all its threads, in user and kernel mode; by its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def peak_memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))


def reset_peak_memory(pid):
    try:
        with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as f:
            f.write("5")
    except OSError:
        pass  # then it is the most since the mount


def fio_arguments(job, target, seconds, seed):
    if "trim" in job.rw:
        engine = "falloc"
    else:
        engine = "libaio" if job.depth > 1 else "psync"
    buffered = "buffered" in target.layers
    argv = ["fio", "--name=" + job.name, "--rw=" + job.rw, "--bs=" + job.bs, f"--direct={int(not buffered)}",
            "--ioengine=" + engine, f"--iodepth={job.depth}", f"--numjobs={job.jobs}", "--thread", "--group_reporting",
            "--norandommap", "--random_generator=tausworthe64", f"--randseed={seed}", "--fallocate=none",
            f"--invalidate={int(buffered)}", f"--end_fsync={int(buffered)}", "--percentile_list=50:99:99.9",
            "--output-format=json"]
    if job.apart:
        argv += [f"--directory={target.mnt}", "--filename_format=volume.$jobnum", f"--size={target.size // targets.PARTS}"]
    else:
        argv += ["--filename=" + target.path, f"--size={target.size}"]
    if job.fsync:
        argv.append(f"--fsync={job.fsync}")
    if job.align:
        argv.append("--blockalign=" + job.align)
    if job.count > 0:
        argv.append(f"--number_ios={max(1, job.count * MAPPED_SIZE >> 30)}")
    elif job.count == 0:
        argv += ["--time_based", f"--runtime={int(seconds * 1000)}ms"]
    return argv


def run_fio(job, target, seconds, seed):
    out = run(*fio_arguments(job, target, seconds, seed))
    report = json.loads(out[out.index("{"):])["jobs"][0]
    if report["error"]:
        raise RuntimeError(f"fio failed: {out}")
    parts = [report[d] for d in ("read", "write", "trim") if report[d]["total_ios"]]
    if not parts:
        raise RuntimeError(f"fio did nothing: {out}")
    return parts


def latency_us(parts, percentile):
    values = [p["clat_ns"]["percentile"][percentile] for p in parts if "percentile" in p["clat_ns"]]
    return max(values) / 1000 if values else None


def sample_load(job, target, seconds, seed):
    with Beside(target, target.beside, seconds):
        reset_peak_memory(target.pid)
        cpu = cpu_seconds(target.pid)
        parts = run_fio(job, target, seconds, seed)
        cpu = cpu_seconds(target.pid) - cpu
    requests = sum(p["total_ios"] for p in parts)
    nr_bytes = sum(p["io_bytes"] for p in parts)
    sample = {
        "iops": sum(p["iops"] for p in parts),
        "mib_s": sum(p["bw_bytes"] for p in parts) / (1 << 20),
        "cpu_us_per_request": cpu * 1e6 / requests,
        "cpu_s_per_gib": cpu * (1 << 30) / nr_bytes,
        "memory_kib": peak_memory_kib(target.pid),
        "p50_us": latency_us(parts, "50.000000"),
        "p99_us": latency_us(parts, "99.000000"),
        "p999_us": latency_us(parts, "99.900000"),
        "max_us": max(p["clat_ns"]["max"] for p in parts) / 1000,
    }
    sample["value"] = {
        "kIOPS": sample["iops"] / 1000,
        "MiB/s": sample["mib_s"],
        "p99.9 us": sample["p999_us"],
        "max us": sample["max_us"],
    }[job.unit]
    return sample


class Mappings:
    """A pool whose volume has so many mappings, made without writing data, in which operations are timed."""

    def __init__(self, folder, nr):
        self.folder, self.nr = folder, nr
        self.mnt = folder + "/mnt"
        self.images = folder + "/data.img", folder + "/meta.img"
        self.count = 0
        os.makedirs(self.mnt)
        meta_bytes = max(64, nr // 20000) * targets.MIB
        if nr:
            targets.restore_pool(*self.images, nr, 100000, meta_bytes)
            self.mount()
            os.rename(self.mnt + "/thin-1", self.mnt + "/volume")
            os.truncate(self.mnt + "/volume", (nr + 1) * targets.BLOCK)
        else:
            run(THINFS, "format", "--data-size", 100000 * targets.BLOCK, "--metadata-size", meta_bytes, "--block-size",
                targets.BLOCK, *self.images)
            self.mount()
            run(THINFS, "create", "--size", targets.BLOCK, self.mnt + "/volume")
        self.sync()

    def mount(self):
        run(THINFS, "mount", "-o", "skip_block_zeroing", *self.images, self.mnt)

    def sync(self):
        run(THINFS, "sync", self.mnt)

    def close(self):
        run(THINFS, "umount", self.mnt)
        targets.audit(self.images[1])
        for image in self.images:
            os.unlink(image)

    def take(self, operation):
        """The figure for an operation: milliseconds that it takes, mostly; it is undone again."""
        return getattr(self, "time_" + operation)()

    def timed(self, call):
        self.sync()
        begin = time.monotonic()
        call()
        return (time.monotonic() - begin) * 1000

    def time_mount(self):
        run(THINFS, "umount", self.mnt)
        begin = time.monotonic()
        self.mount()
        return (time.monotonic() - begin) * 1000

    def time_snapshot(self):
        name = self.mnt + "/.snapshots/volume@timed"
        took = self.timed(lambda: os.mkdir(name))
        os.rmdir(name)
        return took

    def time_snapshot100(self):
        for n in range(99):
            if not os.path.exists(f"{self.mnt}/v{n}"):
                run(THINFS, "create", "--size", "1M", f"{self.mnt}/v{n}")
        name = self.mnt + "/.snapshots/timed"
        took = self.timed(lambda: os.mkdir(name))
        os.rmdir(name)
        return took

    def time_clone(self):
        """With the start of the command."""
        copy = self.mnt + "/copy"
        took = self.timed(lambda: run(THINFS, "clone", self.mnt + "/volume", copy))
        os.unlink(copy)
        return took

    def time_delete(self):
        copy = self.mnt + "/copy"
        run(THINFS, "clone", self.mnt + "/volume", copy)
        return self.timed(lambda: os.unlink(copy))

    def time_memory(self):
        rng = random.Random(1)
        fd = os.open(self.mnt + "/volume", os.O_RDONLY)
        try:
            for _ in range(50000):
                os.pread(fd, 4096, rng.randrange(self.nr + 1) * targets.BLOCK)
        finally:
            os.close(fd)
        return peak_memory_kib(targets.server_of(self.mnt)) / 1024
