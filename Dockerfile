# The server. Build context: this folder.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked --package synchrotron-server \
    && install -D target/release/synchrotron-server /out/synchrotron-server

FROM debian:bookworm-slim
# An issuer's public keys come over HTTPS, and this image has no root certificates of its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/synchrotron-server /usr/local/bin/synchrotron-server
USER nobody
EXPOSE 8080
# The image has no HTTP client, but bash opens TCP connections.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.. 200' <&3"]
ENTRYPOINT ["synchrotron-server"]
CMD ["serve"]
