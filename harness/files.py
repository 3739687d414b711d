"""The system calls of a run store, and whole-file operations in terms of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.tmp")
"""Names of the files that `Files.temporary` makes."""


class Fs:
    """The system calls of a store, so that tests can make any one of them fail."""

    def open(self, path: Path, flags: int) -> int:
        """File descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Number of bytes written, which may be fewer than given."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Force a file or a folder to disk."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Force a file's content to disk; macOS has only the stronger call."""
        getattr(os, "fdatasync", os.fsync)(fd)

    def close(self, fd: int) -> None:
        """Release the descriptor."""
        os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError if it is taken. Atomic, on NFS too."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Replace the target atomically."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Make one folder."""
        os.mkdir(path)

    def read(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()


class Files:
    """Whole-file operations in terms of `Fs`."""

    def __init__(self, fs: Fs) -> None:
        self.fs = fs

    def write(self, fd: int, data: bytes) -> None:
        """Write all of it, in as many calls as that takes."""
        rest = memoryview(data)
        while rest:
            written = self.fs.write(fd, rest)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            rest = rest[written:]

    def temporary(self, path: Path, data: bytes, *, durable: bool) -> Path:
        """Write a file beside `path` under a name of its own, completely or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(6).hex()}.tmp")
        fd = self.fs.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                self.write(fd, data)
                if durable:
                    self.fs.fsync(fd)
            finally:
                self.fs.close(fd)
        except BaseException:
            self.discard(temporary)
            raise
        return temporary

    def replace(self, path: Path, data: bytes, *, durable: bool) -> None:
        """Put new content under `path`; a reader sees the old one or the new one."""
        temporary = self.temporary(path, data, durable=durable)
        try:
            self.fs.rename(temporary, path)
        except BaseException:
            self.discard(temporary)
            raise

    def sync_folder(self, folder: Path) -> None:
        """Force the names in a folder to disk."""
        fd = self.fs.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fs.fsync(fd)
        finally:
            self.fs.close(fd)

    def folder(self, path: Path) -> None:
        """Make a folder, unless another writer has."""
        with contextlib.suppress(FileExistsError):
            self.fs.mkdir(path)

    def discard(self, path: Path) -> None:
        """Remove a temporary file; one that stays is `gc`'s and must not hide the error that led here."""
        with contextlib.suppress(OSError):
            self.fs.unlink(path)

    def content(self, path: Path) -> bytes | None:
        """The whole file; None if there is none."""
        try:
            return self.fs.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
