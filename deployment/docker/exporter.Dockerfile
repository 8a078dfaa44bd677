# The exporter's commands, on the Triton release that exports target: NVIDIA's server proves a
# candidate, and its TensorRT builds a plan. Build from the repository root.
#
#   docker build -f deployment/docker/exporter.Dockerfile -t stlab-exporter:0.1.0 .
#
# TRITON_RELEASE must be the servers' release, and that of --triton-release. TRITON_DIGEST and
# PYTHON_DIGEST pin the bases by digest: --build-arg TRITON_DIGEST=@sha256:...
# TORCH_INDEX has torch without CUDA, a tenth of the size; converting needs no more.
# EXTRAS are stlab's extras: the model flavors and object stores that it can read.
# TENSORRT_BINDINGS is the package with the Python bindings of the base's TensorRT, on which NVIDIA's
# `tensorrt` package depends; empty leaves it out.
ARG TRITON_RELEASE=26.07
ARG TRITON_DIGEST=""
ARG PYTHON_DIGEST=""
ARG PIP_VERSION=26.3

FROM python:3.12.13-slim-trixie${PYTHON_DIGEST} AS wheels
ARG PIP_VERSION
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=cpu,s3,tabular,transformers
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt hatchling \
    && python -m pip download --dest /pip --no-deps "pip==${PIP_VERSION}"
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY triton_client triton_client
COPY deployment/api deployment/api
COPY deployment/dashboards deployment/dashboards
COPY deployment/web deployment/web
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --wheel-dir /wheels --no-deps --no-build-isolation ./triton_client . \
    && python -m pip wheel --wheel-dir /wheels --constraint constraints.txt \
        --extra-index-url "${TORCH_INDEX}" --find-links /wheels "$(ls /wheels/stlab-*.whl)[${EXTRAS}]"

FROM nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3${TRITON_DIGEST} AS installed
ARG PIP_VERSION
ARG TENSORRT_BINDINGS=tensorrt-cu13-bindings
COPY --from=wheels /wheels /wheels
COPY --from=wheels /pip /pip
# pip runs from its own wheel, so that the image has none. TRT_VERSION is the base's TensorRT version.
# Bytecode is compiled here: at run time the root is read-only.
RUN python3 -m venv --without-pip /opt/stlab \
    && export PYTHONPATH="/pip/pip-${PIP_VERSION}-py3-none-any.whl" \
    && /opt/stlab/bin/python -m pip install --no-index --no-deps --no-cache-dir /wheels/*.whl \
    && if [ -n "${TENSORRT_BINDINGS}" ]; then \
        /opt/stlab/bin/python -m pip install --no-deps --no-cache-dir \
            "${TENSORRT_BINDINGS}==${TRT_VERSION%%+*}" \
        && site="$(/opt/stlab/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")" \
        && mkdir "$site/tensorrt" \
        && printf 'from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n' \
            > "$site/tensorrt/__init__.py" \
        && /opt/stlab/bin/python -m compileall -q "$site/tensorrt"; \
    fi \
    && unset PYTHONPATH \
    && /opt/stlab/bin/stlab --help > /dev/null

FROM nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3${TRITON_DIGEST}
ARG TRITON_RELEASE
COPY --from=installed /opt/stlab /opt/stlab
ENV PATH=/opt/stlab/bin:$PATH \
    HOME=/tmp \
    LOG_FORMAT=json \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STLAB_TRITON_RELEASE=${TRITON_RELEASE}
# uid 1000 is the base's user triton-server. The base's entrypoint prints to stdout, which is for data.
USER 1000:1000
WORKDIR /tmp
# Commands are short-lived: the check is that they load.
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 \
    CMD ["stlab", "--help"]
ENTRYPOINT ["stlab"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="stlab-exporter" \
      org.opencontainers.image.description="From an MLflow model version to a proven, served Triton model." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3"
