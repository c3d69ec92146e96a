# One image for server, worker and the command line. Build and start it with `make docker-up`.

# The wheel: one for every Python from 3.11 on, so that the toolchain's own Python may be another.
FROM rust:1.95-slim-bookworm AS wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir -c constraints.txt maturin
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE ./
COPY crates crates
COPY proto proto
COPY python python
RUN /opt/build/bin/maturin build --release --locked --out /wheels

# The environment: the wheel and the tested versions of all it needs, nothing to build with.
FROM python:3.13-slim-bookworm AS environment
COPY constraints.txt /
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/orqestra && /opt/orqestra/bin/pip install --no-cache-dir -c /constraints.txt /wheels/*.whl

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /home/orqestra --shell /usr/sbin/nologin orqestra \
    && install --directory --owner orqestra --group orqestra --mode 0700 /var/lib/orqestra \
    && install --directory /workflows
COPY --from=environment /opt/orqestra /opt/orqestra
ENV PATH=/opt/orqestra/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORQESTRA_STATE_DIR=/var/lib/orqestra \
    WORKFLOWS_DIR=/workflows
USER orqestra
WORKDIR /home/orqestra
# A worker's identity and unsent results; each container gets a volume of its own.
VOLUME /var/lib/orqestra
EXPOSE 50051 8080
# As a server; docker-compose.yml has another for the workers.
HEALTHCHECK --interval=5s --timeout=4s --start-period=40s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=3)"]
ENTRYPOINT ["orqestra"]
CMD ["--help"]
