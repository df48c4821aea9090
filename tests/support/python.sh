# Sourced by the scripts that need Python libraries: `install_libraries NAME REQUIREMENTS` puts them below
# target/, in a venv where one can be made, else in a plain folder, and sets `python` to one that finds them.

fetch_python() {
    echo "$1: trying apt-get install python3 python3-venv python3-pip" >&2
    if ! command -v apt-get >/dev/null || ! { apt-get update && apt-get install -y python3 python3-venv python3-pip; } >&2; then
        echo "python3 with venv or pip is needed: install it and run this again" >&2
        exit 1
    fi
}

install() {
    "$python" -m pip install --quiet --disable-pip-version-check "$@" && return
    echo "the libraries could not be installed" >&2
    exit 1
}

try_to_install() {
    local venv=$target/$1-venv lib=$target/$1-lib
    if [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >/dev/null 2>&1; then
        python=$venv/bin/python
        install -r "$2"
    elif rm -rf "$venv" && python3 -m pip --version >/dev/null 2>&1; then
        python=python3
        export PYTHONPATH=$lib
        install --upgrade --target "$lib" -r "$2"
    else
        return 1
    fi
}

install_libraries() {
    command -v python3 >/dev/null || fetch_python "python3 is missing"
    if ! python3 -m venv --help >/dev/null 2>&1 && ! python3 -m pip --version >/dev/null 2>&1; then
        fetch_python "python3 has neither venv nor pip"
    fi
    try_to_install "$@" || { fetch_python "no environment could be made"; try_to_install "$@"; }
}

# Waits up to ten seconds until a process has written a line with these words to a file.
line_of() {
    for _ in $(seq 100); do
        grep -m 1 "$2" "$3" && return
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    return 1
}
