# syntax=docker/dockerfile:1
# Two images from one file, both from the hashed locks: `service` (the default) and `gateway`, the example that logs to it.

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM base AS build
WORKDIR /src
COPY requirements-uv.txt requirements.lock requirements-service.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-uv.txt \
 && uv venv /opt/probewatch \
 && uv pip install --no-cache --python /opt/probewatch --require-hashes -r requirements-service.lock
COPY pyproject.toml README.md LICENSE ./
COPY door door
COPY models models
COPY detector detector
COPY streams streams
RUN uv pip install --no-cache --python /opt/probewatch --no-deps --build-constraints requirements.lock ./door .

FROM build AS build-gateway
RUN uv pip install --no-cache --python /opt/probewatch --require-hashes -r requirements.lock

FROM base AS runtime
# Nothing is written but compiled kernels and what Python calls temporary: a read-only root needs a tmpfs on /tmp.
ENV PATH=/opt/probewatch/bin:$PATH PROBEWATCH_KERNEL_CACHE=/tmp/kernels HOME=/tmp
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin probewatch
WORKDIR /tmp
USER 10001:10001

FROM runtime AS gateway
COPY --from=build-gateway /opt/probewatch /opt/probewatch
COPY examples /opt/examples/examples
ENV PYTHONPATH=/opt/examples
ENTRYPOINT ["python", "-m", "examples.loan_gateway"]

FROM runtime AS service
COPY --from=build /opt/probewatch /opt/probewatch
ENTRYPOINT ["probewatch"]
CMD ["run"]
