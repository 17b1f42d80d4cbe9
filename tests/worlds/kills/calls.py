# ruff: noqa: PTH100, PTH118, PTH202
"""Puts a watch between a process and the calls of Python, of the system and of safetensors that change files."""

from __future__ import annotations

import _io
import builtins
import fcntl
import io
import os
import shutil
from pathlib import Path

from worlds.kills.watch import CALLS, OPEN, File, Watch, opened, path_of, written


def install(folder, order):
    """Watch a folder from now on, in this process."""
    watch = Watch(os.path.abspath(folder), order)
    shutil._USE_CP_SENDFILE = False

    def open_(
        file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
    ):
        rest = {"encoding": encoding, "errors": errors, "newline": newline}
        path = path_of(file) if isinstance(file, int) else file
        if not set(mode) & set("wax+") or opener is not None or watch.relative(path) is None:
            return OPEN(file, mode, buffering, **rest, closefd=closefd, opener=opener)
        bare = mode.replace("b", "").replace("t", "")
        act = lambda: File(file, bare, closefd=closefd)
        if isinstance(file, int):
            raw = act()
        else:
            creates = bool(set(mode) & set("wax"))
            raw = opened(watch, file, truncates="w" in mode, creates=creates, act=act)
        raw.watch = watch
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    for module in (builtins, io, _io):
        module.open = open_
    _watch_descriptors(watch)
    _watch_names(watch)
    _watch_safetensors(watch)
    return watch


def within(path, dir_fd):
    """The whole path of one that may be relative to an open folder."""
    return path if dir_fd is None else os.path.join(path_of(dir_fd), os.fsdecode(path))


def _watch_descriptors(watch):
    """Calls about open files."""

    def os_open(path, flags, mode=0o777, *, dir_fd=None):
        act = lambda: CALLS["open"](path, flags, mode, dir_fd=dir_fd)
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return act()
        creates, truncates = bool(flags & os.O_CREAT), bool(flags & os.O_TRUNC)
        return opened(watch, within(path, dir_fd), truncates=truncates, creates=creates, act=act)

    def write(descriptor, data):
        path = path_of(descriptor)
        if watch.relative(path) is None:
            return CALLS["write"](descriptor, data)
        appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        at = os.lseek(descriptor, 0, os.SEEK_END if appends else os.SEEK_CUR)
        return written(watch, path, at, bytes(data), lambda part: CALLS["write"](descriptor, part))

    def pwrite(descriptor, data, offset):
        act = lambda part: CALLS["pwrite"](descriptor, part, offset)
        return written(watch, path_of(descriptor), offset, bytes(data), act)

    def synced(call):
        def sync(file):
            descriptor = file if isinstance(file, int) else file.fileno()
            name, act = watch.relative(path_of(descriptor)), lambda: CALLS[call](descriptor)
            return act() if name is None else watch.change("sync", name, act, entries=[("sync", name)])

        return sync

    os.open, os.write, os.pwrite = os_open, write, pwrite
    os.fsync, os.fdatasync = synced("fsync"), synced("fdatasync")


def _watch_names(watch):
    """Calls about files and folders by their names."""

    def moved(call):
        def move(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
            name = watch.relative(within(dst, dst_dir_fd))
            act = lambda: CALLS[call](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            if name is None:
                return act()
            entries = [("move", watch.relative(within(src, src_dir_fd)), name)]
            return watch.change("move", name, act, entries=entries)

        return move

    def gone(call):
        def remove(path, *, dir_fd=None):
            whole = within(path, dir_fd)
            name, act = watch.relative(whole), lambda: CALLS[call](path, dir_fd=dir_fd)
            if name is None or not os.path.lexists(whole):  # nothing changes
                return act()
            return watch.change("remove", name, act, entries=[("remove", name)])

        return remove

    def mkdir(path, mode=0o777, *, dir_fd=None):
        whole = within(path, dir_fd)
        name, act = watch.relative(whole), lambda: CALLS["mkdir"](path, mode, dir_fd=dir_fd)
        if name is None or os.path.lexists(whole):
            return act()
        return watch.change("mkdir", name, act, entries=[("mkdir", name)])

    def truncated(call):
        def truncate(file, length):
            path = path_of(file) if isinstance(file, int) else file
            name, act = watch.relative(path), lambda: CALLS[call](file, length)
            return act() if name is None else watch.change("cut", name, act, entries=[("cut", name, length)])

        return truncate

    os.replace, os.rename, os.mkdir = moved("replace"), moved("rename"), mkdir
    os.unlink = os.remove = gone("unlink")
    os.rmdir = gone("rmdir")
    os.ftruncate, os.truncate = truncated("ftruncate"), truncated("truncate")


def _watch_safetensors(watch):
    import safetensors.numpy
    import safetensors.torch

    def told(serialize):
        def serialize_file(tensors, filename, metadata=None):
            name, act = watch.relative(filename), lambda: serialize(tensors, filename, metadata)
            if name is None:
                return act()

            def half():
                act()
                CALLS["truncate"](filename, os.path.getsize(filename) // 2)

            entries = [("create", name), lambda: ("write", name, 0, Path(filename).read_bytes())]
            return watch.change("library", name, act, half=half, entries=entries)

        return serialize_file

    for module in (safetensors.numpy, safetensors.torch):
        module.serialize_file = told(module.serialize_file)
