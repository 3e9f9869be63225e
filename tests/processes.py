"""Several processes of JAX on this machine, each with virtual devices of the CPU, at a port that nobody else can take."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager

BEGIN = """
import sys, jax
rank, address, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
jax.distributed.initialize(
    address, {count}, rank, coordinator_bind_address=address, heartbeat_timeout_seconds=10, shutdown_timeout_seconds={shutdown}
)
"""


class Process:
    """A process that was started: `wait()` gives what it printed, and its exit code."""

    def __init__(self, command, environment, output):
        self.popen = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self._output = output

    def wait(self, timeout):
        """
        Raises:
            AssertionError: it still runs after so many seconds.
        """
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.printed()[-3000:]}") from None
        return self.printed(), code

    def printed(self):
        """What it has printed so far, without the lines of JAX's collectives."""
        self._output.seek(0)
        return "".join(line for line in self._output if not line.startswith("[Gloo]"))


@contextmanager
def started(program, *arguments, count=2, devices=4, shutdown=60):
    """Start a program in several processes; they are killed at the end."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"  # of two counts the last holds
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    with ExitStack() as stack:
        # JAX shares a port as this socket does; others do not get it while it is bound here
        port = stack.enter_context(socket.socket())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{port.getsockname()[1]}"
        processes = []
        for rank in range(count):
            command = [sys.executable, "-c", BEGIN.format(count=count, shutdown=shutdown) + program, str(rank), address]
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = Process([*command, *map(str, arguments)], environment, output)
            stack.callback(process.popen.wait)
            stack.callback(process.popen.kill)
            processes.append(process)
        yield processes


def outputs(program, *arguments, count=2, devices=4, timeout=300):
    """Run a program in several processes to its end; what each printed."""
    with started(program, *arguments, count=count, devices=devices) as processes:
        end = time.monotonic() + timeout
        found = []
        while any(process.popen.poll() is None for process in processes) and time.monotonic() < end:
            failed = [process for process in processes if process.popen.poll()]
            assert not failed, failed[0].printed()[-3000:]
            time.sleep(0.05)
        for process in processes:
            printed, code = process.wait(1)
            assert code == 0, printed[-3000:]
            found.append(printed)
        return found
