"""Where pods run in the test: a network namespace each, joined by a bridge, or, where the kernel or the user's rights do
not allow that, addresses of the loopback interface."""

import ipaddress
import os
import shutil
import subprocess

# From the block for benchmarks between networks, which no real network uses.
SUBNET = ipaddress.ip_network("198.19.77.0/24")


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Loopback:
    """Names resolve to nothing here; `resolves` says so."""

    resolves = False

    def __init__(self):
        self.count = 0

    def add(self, _name):
        self.count += 1
        return f"127.0.77.{self.count}"

    def set_names(self, _names):
        pass

    def command(self, _name, argv):
        return argv

    def close(self):
        pass


class Namespaces:
    """One per pod, named lancet-PID-NAME; the bridge lies in one of its own."""

    resolves = True

    def __init__(self):
        self.prefix = f"lancet-{os.getpid()}"
        self.names = []
        self.addresses = {}
        try:
            run("ip", "netns", "add", f"{self.prefix}-net")
            self.names.append(f"{self.prefix}-net")
            self.inside("net", "ip", "link", "add", "br0", "type", "bridge")
            self.inside("net", "ip", "link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise

    def inside(self, name, *command):
        run("ip", "netns", "exec", f"{self.prefix}-{name}", *command)

    def add(self, name):
        namespace = f"{self.prefix}-{name}"
        run("ip", "netns", "add", namespace)
        self.names.append(namespace)
        address = SUBNET[len(self.names)]
        self.inside("net", "ip", "link", "add", f"v{len(self.names)}", "type", "veth", "peer", "name", "eth0",
                    "netns", namespace)
        self.inside("net", "ip", "link", "set", f"v{len(self.names)}", "master", "br0", "up")
        self.inside(name, "ip", "address", "add", f"{address}/{SUBNET.prefixlen}", "dev", "eth0")
        self.inside(name, "ip", "link", "set", "lo", "up")
        self.inside(name, "ip", "link", "set", "eth0", "up")
        self.addresses[name] = str(address)
        return str(address)

    def set_link(self, name, up):
        self.inside(name, "ip", "link", "set", "eth0", "up" if up else "down")

    def set_names(self, names):
        """{host name: address} for what runs in any namespace: `ip netns exec` puts these files over those in /etc."""
        for namespace in self.names:
            folder = os.path.join("/etc/netns", namespace)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as file:
                file.write("127.0.0.1 localhost\n")
                file.writelines(f"{address} {name}\n" for name, address in names.items())

    def command(self, name, argv):
        return ["ip", "netns", "exec", f"{self.prefix}-{name}", *argv]

    def close(self):
        for namespace in reversed(self.names):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
            shutil.rmtree(os.path.join("/etc/netns", namespace), ignore_errors=True)


def make_hosts():
    if os.geteuid() == 0 and shutil.which("ip"):
        try:
            hosts = Namespaces()
            try:
                hosts.add("trial")  # a kernel may have bridges and no virtual links
            except BaseException:
                hosts.close()
                raise
            return hosts
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no network namespaces here ({error}); on loopback addresses instead")
    return Loopback()
