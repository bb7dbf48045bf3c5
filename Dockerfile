# The workbench: service, JupyterLab, scheduler and workers are the same image with another command.
#
#   docker build --tag workbench:0.1.0 .
#   docker build --tag workbench:0.1.0-cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS build
# PyTorch's CPU index: a tenth of the size of the builds for GPUs
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve,onnx,postgres,redis,s3,dask,openai,telemetry
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/workbench
COPY constraints.txt ./
RUN /opt/workbench/bin/pip install --constraint constraints.txt \
    --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md LICENSE ./
COPY jupyter-config jupyter-config
COPY data/seeds data/seeds
COPY src src
RUN /opt/workbench/bin/pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}
RUN useradd --uid 10001 --create-home workbench \
    && install --directory --owner workbench /var/lib/workbench /srv/workbench/reports
COPY --from=build /opt/workbench /opt/workbench
WORKDIR /srv/workbench
COPY experiments experiments
COPY notebooks notebooks
# one thread each: a worker is a process, and there is one per core
ENV PATH=/opt/workbench/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    WORKBENCH_HOME=/var/lib/workbench
USER workbench
VOLUME /var/lib/workbench
EXPOSE 8400
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8400/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["workbench"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8400"]
