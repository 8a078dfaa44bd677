# The dashboard, stlab-dashboard: build from the repository root.
#
#   docker build -f deployment/docker/dashboard.Dockerfile -t stlab-dashboard:0.1.0 .
#
# PYTHON_DIGEST pins the base by digest: --build-arg PYTHON_DIGEST=@sha256:...
# Plug-ins come in an image that is built FROM this one; docs/deployment.md shows how.
ARG PYTHON_DIGEST=""

FROM python:3.12.13-slim-trixie${PYTHON_DIGEST} AS wheels
WORKDIR /src
COPY constraints.txt deployment/docker/dashboard.requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --wheel-dir /wheels --constraint constraints.txt --requirement dashboard.requirements.txt \
    && python -m pip install --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY triton_client triton_client
COPY deployment/api deployment/api
COPY deployment/dashboards deployment/dashboards
COPY deployment/web deployment/web
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --wheel-dir /wheels --no-deps --no-build-isolation --constraint constraints.txt ./triton_client .

FROM wheels AS installed
# Bytecode is compiled here: at run time the root is read-only.
RUN python -m venv --without-pip /opt/stlab \
    && python -m pip --python /opt/stlab/bin/python install --no-index --no-deps --no-cache-dir /wheels/*.whl \
    && /opt/stlab/bin/python -c "import stlab_dashboard.app"

FROM python:3.12.13-slim-trixie${PYTHON_DIGEST}
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stlab
COPY --from=installed /opt/stlab /opt/stlab
ENV PATH=/opt/stlab/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STLAB_DASHBOARD_HOST=0.0.0.0 \
    STLAB_DASHBOARD_PORT=8090
USER 1000:1000
WORKDIR /tmp
EXPOSE 8090
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['STLAB_DASHBOARD_PORT'] + '/static/favicon.svg', timeout=4)"]
ENTRYPOINT ["stlab-dashboard"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="stlab-dashboard" \
      org.opencontainers.image.description="A read-only window on registry, model repository and servers." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.12.13-slim-trixie"
