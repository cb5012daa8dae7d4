"""What the binary does with hostile files: time, memory, and every file and process that it touches.

    cargo test --release -p striate-cli --test hostile     # makes the files, and checks what is said of them
    cargo build --release
    python3 tools/hostile/check.py [FOLDER [BINARY]] [--trace-only]

Each file of FOLDER/list.json goes through the verbs that read it. Each run must end with exit code 2 and one line on stderr, within 50 ms
of wall time (the least of three) and 64 MiB of resident memory. Then it runs again under `strace -f`: it may start no process and open
no connection, open nothing for writing and make or remove nothing, and read only files of FOLDER, /proc, /sys, and what the loader
reads. `--trace-only` leaves out the times, for busy machines. Needs Linux and strace.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

MOST_MS, MOST_MIB = 50, 64
# all that open, make, remove or change files, start processes, or talk to others
CALLS = "trace=%file,%process,%network,open_by_handle_at,ftruncate,fchmod,fchown,memfd_create,io_uring_setup"
LOADER = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
READS = ("/proc/", "/sys/")
# calls that change nothing, whatever they name
LOOKS = {"access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "statx", "statfs", "readlink", "readlinkat", "getcwd"}


def commands(binary, file, graph, out, folder):
    path, array = str(folder / file), str(folder / "x.npy")
    run = ["--input", array, "--output", str(out / "out")]
    inspect, convert = [binary, "inspect", path], [binary, "convert", path, str(out / "out.safetensors")]
    weights = [binary, "run", "lenet", "--weights", path, *run]
    if graph:
        return [inspect, [binary, "run", path, *run]]
    return [convert, weights] if file.endswith(".onnx") else [inspect, convert, weights]


def measure(command):
    """Exit code, stderr, milliseconds, MiB."""
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, said.fileno(), 2)])
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - begin
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode(), 1000 * seconds, usage.ru_maxrss / 1024


def trace(command, folder):
    """What the run did that it must not."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as log:
        done = subprocess.run(["strace", "-f", "-qq", "-s", "4096", "-e", CALLS, "-o", log.name, *command],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = log.read().splitlines()
    wrong = [f"exit code {done.returncode}"] if done.returncode != 2 else []
    started = 0
    for line in lines:
        found = re.match(r"\d+\s+(\w+)\((.*)", line)
        if not found:
            continue  # signals, ends of processes and of calls that were interrupted
        call, rest = found.groups()
        name = re.search(r'"((?:[^"\\]|\\.)*)"', rest)
        name = name.group(1) if name else ""
        if call in ("execve", "execveat"):
            started += 1
            if started > 1:
                wrong.append(line)
        elif call in ("clone", "clone3"):
            if "CLONE_THREAD" not in rest:
                wrong.append(line)
        elif call in ("exit", "exit_group", "wait4", "waitid", "rt_sigreturn", "arch_prctl"):
            pass
        elif call in ("open", "openat", "openat2"):
            harmless = "O_RDONLY" in rest and not re.search(r"O_(CREAT|TRUNC|APPEND|TMPFILE)", rest)
            known = name.startswith((str(folder) + "/", *READS, *LOADER)) and "/../" not in name
            if not harmless or not known:
                wrong.append(line)
        elif call not in LOOKS:
            wrong.append(line)
    return wrong


def can_trace():
    try:
        return subprocess.run(["strace", "-f", "-qq", "-e", CALLS, "-o", os.devnull, "true"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    folder = pathlib.Path(arguments[0] if arguments else "target/tmp/hostile").resolve()
    binary = str(pathlib.Path(arguments[1] if len(arguments) > 1 else "target/release/striate").resolve())
    timed = "--trace-only" not in sys.argv
    wrong, most_ms, most_mib, runs = [], (0, ""), (0, ""), 0
    if not can_trace():
        print("skipped: strace is not there, or may not trace in this place")
        return
    files = json.loads((folder / "list.json").read_text())
    with tempfile.TemporaryDirectory() as out:
        for entry in files:
            for command in commands(binary, entry["file"], entry["graph"], pathlib.Path(out), folder):
                runs += 1
                label = f"{command[1]} {entry['file']}"
                if timed:
                    tries = [measure(command) for _ in range(3)]
                    code, said, _, mib = tries[0]
                    ms = min(t[2] for t in tries)
                    most_ms, most_mib = max(most_ms, (ms, label)), max(most_mib, (mib, label))
                    lines = said.splitlines()
                    if code != 2 or len(lines) != 1 or entry["file"] not in said:
                        wrong.append(f"{label}: exit code {code}: {said[:300]}")
                    if ms > MOST_MS or mib > MOST_MIB:
                        wrong.append(f"{label}: {ms:.0f} ms, {mib:.0f} MiB")
                wrong += [f"{label}: {what}" for what in trace(command, folder)]
        left = os.listdir(out)
    if left:
        wrong.append(f"files were left: {left}")
    print("\n".join(wrong))
    if timed:
        print(f"longest: {most_ms[0]:.1f} ms ({most_ms[1]}); largest: {most_mib[0]:.1f} MiB ({most_mib[1]})")
    print(f"{len(files)} files, {runs} runs, {len(wrong)} things wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
