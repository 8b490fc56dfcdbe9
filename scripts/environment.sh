# Sourced by demo.sh and test.sh from the project's root: activates the virtual environment, making and filling it
# when there is none. Nothing is installed again while pyproject.toml is unchanged.
if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
            if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
                python="$candidate"
                break
            fi
        done
        if [ -z "${python:-}" ]; then
            echo "degstalk-ns needs Python 3.10, 3.11 or 3.12; install one, or set PYTHON to it" >&2
            exit 1
        fi
        echo "Making a virtual environment in .venv"
        "$python" -m venv .venv
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/.degstalk-installed"
wanted="$(pwd) $(cksum < pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing degstalk-ns and what it needs (about 3 minutes and 9 GB the first time)"
    quiet=--quiet
    if [ -t 1 ]; then quiet=""; fi # a person sees each package go by
    python -m pip install $quiet --disable-pip-version-check -e ".[dev,fleet]"
    echo "$wanted" > "$stamp"
fi
