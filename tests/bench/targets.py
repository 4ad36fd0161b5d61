# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that are compared, each with one volume, and the states that the volume may be in."""
import mmap
import os
import random
import shutil
import subprocess
import threading
import time

MIB = 1 << 20
BLOCK = 64 << 10
SNAPSHOTS_DEEP = 10
PARTS = 8  # volumes beside the one, of its size together, for those who want one each
HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("top_builddir", ".")
THINFS = os.environ.get("THINFS", BUILD + "/thinfs")
MAPPED_SIZE = int(os.environ.get("BENCH_SIZE_MIB", "1024")) * MIB
EMPTY_SIZE = 64 * MAPPED_SIZE
NR_DOOMED, DOOMED_SIZE = 10, 65536 * BLOCK  # volumes to delete
POOL_SIZE = EMPTY_SIZE + 4 * MAPPED_SIZE + NR_DOOMED * DOOMED_SIZE


def run(*argv, **kwargs):
    """Run to the end; an exception, with what it said, if it fails."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def wait_until(what, true, seconds=20):
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise RuntimeError(f"waited in vain until {what}")
        time.sleep(0.005)


def write_blocks(path, offsets, size=MIB, flags=os.O_DIRECT):
    """Write SIZE bytes that are not zeros at each of the offsets, and sync."""
    buf = mmap.mmap(-1, size)
    buf.write(random.Random(size).randbytes(size))
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        for offset in offsets:
            os.pwrite(fd, buf, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def map_all(path, size):
    """Mappings to few data blocks, by sharing them within the volume: 64 MiB of the disk whatever SIZE is."""
    fd = os.open(path, os.O_RDWR)
    try:
        done = min(size, 64 * MIB)
        os.posix_fallocate(fd, 0, done)
        while done < size:
            done += os.copy_file_range(fd, fd, min(done, size - done), 0, done)
    finally:
        os.close(fd)


BITMAP_BLOCKS = 16320  # of a space map's bitmap: thin_restore is right for whole ones


def restore_pool(data, meta, nr, spare, meta_bytes):
    """A pool whose device 1 has NR mappings, made without data, and SPARE free blocks or some more."""
    blocks = (nr + spare + BITMAP_BLOCKS - 1) // BITMAP_BLOCKS * BITMAP_BLOCKS
    for path, size in ((data, blocks * BLOCK), (meta, meta_bytes)):
        with open(path, "wb") as f:
            f.truncate(size)
    with open(meta + ".xml", "w", encoding="utf-8") as f:
        f.write(f"""<superblock uuid="" time="0" transaction="1" version="2" data_block_size="{BLOCK // 512}" nr_data_blocks="{blocks}">
<device dev_id="1" mapped_blocks="{nr}" transaction="0" creation_time="0" snap_time="0">
<range_mapping origin_begin="0" data_begin="0" length="{nr}" time="0"/>
</device></superblock>
""")
    run("thin_restore", "-q", "-i", meta + ".xml", "-o", meta)
    os.unlink(meta + ".xml")


def server_of(mnt):
    """The process that serves a mount of thinfs."""
    return next(int(line.split()[-1]) for line in run(THINFS, "status", mnt).splitlines() if line.startswith("served by"))


class Target:
    """A program that serves a volume. FILE is its path, PID the process that serves it."""

    def __init__(self, folder, state, options):
        self.folder, self.state = folder, state
        self.options = [o for o in options if o]
        self.layers = [o for o in self.options if o in ("loop", "loopbuf", "buffered", "slow")]
        self.mount_options = [o for o in self.options if o not in self.layers and not o.startswith("beside-")]
        self.beside = next((o[len("beside-"):] for o in self.options if o.startswith("beside-")), None)
        self.size = EMPTY_SIZE if state == "empty" else MAPPED_SIZE
        self.mnt = folder + "/mnt"
        self.loop = None
        self.pid = None
        os.makedirs(folder)
        self.open()
        if "loop" in self.layers or "loopbuf" in self.layers:
            direct = "off" if "loopbuf" in self.layers else "on"
            self.loop = run("losetup", "-f", "--show", "--direct-io=" + direct, self.file).strip()

    @property
    def path(self):
        return self.loop or self.file

    def environment(self):
        return dict(os.environ, **({"BENCH_FLUSH_US": "5000"} if "slow" in self.layers else {}))

    def spawn(self, *argv):
        self.log = open(self.folder + "/log", "w+", encoding="utf-8")
        # A session of its own, as thinfs has: on a busy machine the kernel shares out time by session.
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log, env=self.environment(),
                                        start_new_session=True)
        self.pid = self.process.pid

    def is_mounted(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise RuntimeError(f"{self.process.args}: status {self.process.returncode}\n{self.log.read()}")
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return f" {self.mnt} " in f.read()

    def fill(self):
        write_blocks(self.file, range(0, self.size, MIB))

    def end_process(self):
        run("umount", self.mnt)
        self.process.wait(30)
        self.log.close()

    def close(self):
        """Unmount and remove all; the pool is checked."""
        if self.loop:
            run("losetup", "-d", self.loop)
            name = f"/sys/block/{os.path.basename(self.loop)}/loop/backing_file"
            wait_until("the loop device has let go", lambda: not os.path.exists(name))
        self.close_volume()
        shutil.rmtree(self.folder)


class Floor(Target):
    def open(self):
        os.mkdir(self.mnt)
        self.file = self.mnt + "/volume"
        image = self.folder + "/image"
        copies = any(o.startswith("copy=") for o in self.mount_options)
        with open(image, "wb") as f:
            f.truncate(self.size * (2 if copies else 1))
        if self.state != "empty":
            # In the page cache, as what others write to their images is.
            write_blocks(image, range(0, self.size, MIB), flags=0)
        self.spawn(BUILD + "/tests/bench/floor", image, self.mnt, *self.mount_options)
        wait_until("the floor is mounted", self.is_mounted)

    def close_volume(self):
        self.end_process()


class Thinfs(Target):
    def __init__(self, *args):
        self.snapshots = 0
        super().__init__(*args)

    def open(self):
        self.images = self.folder + "/data.img", self.folder + "/meta.img"
        os.mkdir(self.mnt)
        self.file = self.mnt + "/volume"
        run(THINFS, "format", "--data-size", POOL_SIZE, "--metadata-size", "256M", "--block-size", BLOCK, *self.images)
        self.mount()
        run(THINFS, "create", "--size", self.size, self.file)
        for n in range(PARTS):
            run(THINFS, "create", "--size", self.size // PARTS, f"{self.file}.{n}")
        if self.state != "empty":
            self.fill()
        if self.state == "snap":
            self.snapshot()
        if self.state == "deep":
            rng = random.Random(1)
            for _ in range(SNAPSHOTS_DEEP):
                self.snapshot()
                blocks = self.size // BLOCK
                write_blocks(self.file, (b * BLOCK for b in rng.sample(range(blocks), blocks // 10)), BLOCK)

    def mount(self):
        program = BUILD + "/tests/bench/thinfs-slow" if "slow" in self.layers else THINFS
        options = ["-o", ",".join(self.mount_options)] if self.mount_options else []
        run(program, "mount", *options, *self.images, self.mnt, env=self.environment())
        self.pid = server_of(self.mnt)

    def snapshot(self, name=None):
        self.snapshots += 1
        os.mkdir(f"{self.mnt}/.snapshots/{name or self.snapshots}")

    def close_volume(self):
        run(THINFS, "umount", self.mnt)
        audit(self.images[1])


class Qcow2(Target):
    def open(self):
        self.file = self.mnt
        with open(self.mnt, "wb"):
            pass
        image = self.folder + "/image"
        run("qemu-img", "create", "-q", "-f", "qcow2", image, self.size)
        self.serve(image)
        if self.state != "empty":
            self.fill()
        if self.state == "snap":
            self.end_process()
            run("qemu-img", "snapshot", "-c", "1", image)
            self.serve(image)

    def serve(self, image):
        self.spawn("qemu-storage-daemon",
                   "--blockdev", ",".join(("driver=file,node-name=file,discard=unmap", *self.mount_options,
                                           f"filename={image}")),
                   "--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap,l2-cache-size=67108864",
                   "--export", f"type=fuse,id=export,node-name=disk,mountpoint={self.mnt},writable=on,allow-other=off")
        wait_until("qemu-storage-daemon has mounted", self.is_mounted)

    def end_process(self):
        run("umount", self.mnt)
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def close_volume(self):
        self.end_process()


PROGRAMS = {"floor": Floor, "thinfs": Thinfs, "qcow2": Qcow2}


def why_not(folder, program, options):
    """What keeps others, or a way of serving that is asked for by name, from being measured here; or None."""
    if program != "qcow2" and not options:
        return None
    try:
        PROGRAMS[program](folder, "empty", options).close()
    except (OSError, RuntimeError) as e:
        shutil.rmtree(folder)
        return str(e)
    return None


def audit(meta):
    """All that checks a pool is content with it."""
    run(THINFS, "check", meta)
    if shutil.which("thin_check"):
        run("thin_check", "-q", meta)
    run("python3", HERE + "/../tools/dm-thin-audit.py", "--no-mappings", "--compact", meta)


class Beside:
    """
    Something that goes on with another volume of a Thinfs, from `with` to its end:
    overwrite, provision   3000 writes of 4K a second, to mapped space or to holes
    snapshots              of it, one after the other, removed again
    delete                 of volumes with 65536 mappings each, one after the other
    """
    RATE = 3000

    def __init__(self, target, what, seconds):
        self.target, self.what, self.seconds = target, what, seconds
        self.stop = threading.Event()
        self.other = f"{target.mnt}/beside"
        self.work = self.error = None

    def __enter__(self):
        if not self.what:
            return self
        for path in self.others():
            size = {"delete": DOOMED_SIZE, "provision": EMPTY_SIZE // 2}.get(self.what, MAPPED_SIZE)
            run(THINFS, "create", "--size", size, path)
            if self.what in ("overwrite", "snapshots"):
                write_blocks(path, range(0, size, MIB))
            if self.what == "delete":
                map_all(path, DOOMED_SIZE)
        run(THINFS, "sync", self.target.mnt)
        self.work = threading.Thread(target=self.guarded, args=(getattr(self, self.what),))
        self.work.start()
        return self

    def __exit__(self, *_):
        if self.work:
            self.stop.set()
            self.work.join()
            for path in self.others():
                if os.path.exists(path):
                    os.unlink(path)
            if self.error:
                raise self.error

    def others(self):
        return [f"{self.other}-{n}" for n in range(NR_DOOMED)] if self.what == "delete" else [self.other]

    def guarded(self, work):
        try:
            work()
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def overwrite(self):
        load = subprocess.Popen(
            ["fio", "--name=beside", "--filename=" + self.other, "--rw=randwrite", "--bs=4k", "--direct=1",
             "--ioengine=psync", f"--rate_iops={self.RATE}", "--norandommap", "--time_based", "--runtime=3600",
             f"--size={os.path.getsize(self.other)}", "--fallocate=none", "--invalidate=0", "--thread"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.stop.wait()
        load.terminate()
        load.wait()

    provision = overwrite

    def snapshots(self):
        name = f"{self.target.mnt}/.snapshots/beside@now"
        while not self.stop.is_set():
            os.mkdir(name)
            time.sleep(0.02)
            os.rmdir(name)
            time.sleep(0.02)

    def delete(self):
        for path in self.others():
            os.unlink(path)
            if self.stop.wait(self.seconds / NR_DOOMED):
                break
