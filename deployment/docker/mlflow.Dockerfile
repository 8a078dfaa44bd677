# MLflow's server in the version that stlab is tested with, with the PostgreSQL driver and the S3 client
# that MLflow's own image lacks. Build from the repository root.
#
#   docker build -f deployment/docker/mlflow.Dockerfile -t stlab-mlflow:0.1.0 .
#
# PYTHON_DIGEST pins the base by digest: --build-arg PYTHON_DIGEST=@sha256:...
ARG PYTHON_DIGEST=""

FROM python:3.12.13-slim-trixie${PYTHON_DIGEST} AS wheels
WORKDIR /src
COPY constraints.txt deployment/docker/mlflow.requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --wheel-dir /wheels --constraint constraints.txt --requirement mlflow.requirements.txt

FROM wheels AS installed
# Bytecode is compiled here: at run time the root is read-only.
RUN python -m venv --without-pip /opt/mlflow \
    && python -m pip --python /opt/mlflow/bin/python install --no-index --no-deps --no-cache-dir /wheels/*.whl \
    && /opt/mlflow/bin/python -c "import boto3, mlflow.server, psycopg"

FROM python:3.12.13-slim-trixie${PYTHON_DIGEST}
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mlflow
COPY --from=installed /opt/mlflow /opt/mlflow
COPY deployment/docker/make_buckets.py /opt/mlflow/bin/make_buckets.py
ENV PATH=/opt/mlflow/bin:$PATH \
    HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow"]
CMD ["server", "--host", "0.0.0.0", "--port", "5000"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="stlab-mlflow" \
      org.opencontainers.image.description="MLflow's server for PostgreSQL and S3." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.12.13-slim-trixie"
