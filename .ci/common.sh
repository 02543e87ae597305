# What the gate and the nightly run share; sourced by both, from the root of the project.

export PIP_DISABLE_PIP_VERSION_CHECK=1

# The interpreter of a version. A version manager's shim may be on PATH and refuse to run, so each
# candidate is tried.
find_python() {
  local version=$1 candidate
  for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
    if "$candidate" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$version'" \
      >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

copy() { git clone --quiet --no-hardlinks . "$1"; }

# The block after a marker in the README, without its fences.
readme_block() {
  awk -v marker="<!-- ci: $1 -->" '
    index($0, marker) {found = 1; next}
    found && /^```/ {if (inside) exit; inside = 1; next}
    inside' README.md
}
