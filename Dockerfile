# The landfall binary, and nothing it does not need: `docker build -t landfall .`
# Redis, the database and the object store run in separate containers; see compose.yaml.

FROM rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
WORKDIR /build
COPY . .
# The caches outlive the layer, so a change does not recompile every dependency.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked --bin landfall \
    && install -D target/release/landfall /out/landfall

FROM debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716
# Root certificates for webhooks and storage.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/landfall landfall \
    # Created here, so that volumes mounted on them belong to the user.
    && install --directory --owner landfall --group landfall \
        /var/lib/landfall /var/lib/landfall/staging /var/lib/landfall/storage
COPY --from=build /out/landfall /usr/local/bin/landfall

USER landfall
WORKDIR /var/lib/landfall
# Tokens are required on addresses other than loopback.
ENV LANDFALL__DATA_DIR=/var/lib/landfall \
    LANDFALL__SERVER__BIND=0.0.0.0:8080 \
    LANDFALL__AUTH__MODE=tokens \
    LANDFALL__LOG__FORMAT=json
EXPOSE 8080
VOLUME /var/lib/landfall

# For `serve`. The image has no curl, but bash can send an HTTP request.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]

ENTRYPOINT ["landfall"]
CMD ["serve"]
