"""`pip install` of clients/python into an environment of its own, from the distribution's packages alone: what is
installed is complete and is what comes with the source. 77 where pip or what it builds with is missing."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
for module in ("venv", "pip", "setuptools", "wheel", "grpc", "google.protobuf", "PIL"):
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None:
        print(f"skipped: no module named {module}; scripts/setup.sh --clients installs it")
        sys.exit(77)

PACKAGE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "clients", "python"))
# In the environment, prints where the package lies and that it works.
TRIAL = """
import lancet, importlib.metadata, os
client = lancet.Client(token="x")
client.generate("a cat", timeout=0.1).cancel()
client.close()
assert importlib.metadata.version("lancet-client") == lancet.__version__
print(os.path.dirname(lancet.__file__))
"""


def run(*argv):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def files_below(folder):
    found = set()
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.endswith(".egg-info")]
        found |= {os.path.relpath(os.path.join(path, name), folder) for name in names}
    return found


with tempfile.TemporaryDirectory(prefix="lancet_install_") as temporary:
    # Building leaves files beside the source.
    source = os.path.join(temporary, "source")
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    environment = os.path.join(temporary, "environment")
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", environment)
    python = os.path.join(environment, "bin", "python")
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", source)
    installed = run(python, "-I", "-c", TRIAL).strip()
    assert installed.startswith(os.path.realpath(environment)), installed
    expected = {name for name in files_below(os.path.join(PACKAGE, "src", "lancet")) if not name.endswith(".proto")}
    assert files_below(installed) == expected, files_below(installed) ^ expected
    print(f"installed {len(expected)} files")
