# Sourced by demo.sh and test.sh from the project's root: activates the virtual environment, making and filling it
# when there is none. Nothing is installed again while pyproject.toml is unchanged.
if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        echo "Making a virtual environment in .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/.degstalk-installed"
wanted="$(pwd) $(cksum < pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing degstalk-ns and what it needs (about 3 minutes and 9 GB the first time)"
    python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
    echo "$wanted" > "$stamp"
fi
