# Targets: `runtime-cpu` (the default, last), `runtime-cuda`, `training`.
#   docker build --target runtime-cpu -t recguard:cpu .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python3 -m venv /opt/recguard
ENV PATH=/opt/recguard/bin:$PATH
WORKDIR /src
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY service service
COPY training training

# the online half alone: what only training uses, and pip itself, stay behind
FROM build AS build-cpu
RUN pip install -q -c constraints.txt ".[cpu,traces,signed,postgres,redis,kafka]" \
 && rm -r /opt/recguard/lib/python3.*/site-packages/training /opt/recguard/bin/recguard-train \
 && pip uninstall -q -y pip setuptools

FROM build AS build-cuda
RUN pip install -q -c constraints.txt ".[cuda,traces,signed,postgres,redis,kafka]" \
 && rm -r /opt/recguard/lib/python3.*/site-packages/training /opt/recguard/bin/recguard-train \
 && pip uninstall -q -y pip setuptools

FROM build AS build-training
RUN pip install -q -c constraints.txt ".[cpu,train,ray]"

FROM ${BASE_IMAGE} AS training
COPY --from=build-training /opt/recguard /opt/recguard
ENV PATH=/opt/recguard/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
RUN useradd --uid 10001 --create-home recguard && mkdir /data && chown recguard /data
USER recguard
WORKDIR /data
ENTRYPOINT ["recguard-train"]

FROM ${BASE_IMAGE} AS runtime
ENV PATH=/opt/recguard/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    RECGUARD_HOST=0.0.0.0 RECGUARD_PORT=8080 \
    RECGUARD_BUNDLE=/bundles/current RECGUARD_BUNDLES=/bundles RECGUARD_STATE_DIR=/state
RUN useradd --uid 10001 --no-create-home recguard && mkdir /bundles /state && chown recguard /state
USER recguard
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/ready', timeout=2)"]
CMD ["recguard-serve", "run"]

FROM runtime AS runtime-cuda
COPY --from=build-cuda /opt/recguard /opt/recguard
ENV RECGUARD_PROVIDER=cuda

FROM runtime AS runtime-cpu
COPY --from=build-cpu /opt/recguard /opt/recguard
ENV RECGUARD_PROVIDER=cpu
