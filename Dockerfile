# The image: the program, the certificate authorities, and nothing that could be run besides. It needs no writable place:
# docker run --read-only --env-file job.env sftp-s3-connector
#
# `make image` builds it. Plain instructions only: it builds with BuildKit and with Docker's classic builder alike.

# Where it is built. Anything with cargo, a C compiler and CA certificates; behind a proxy that opens TLS, an image that
# trusts the proxy.
ARG BUILD_IMAGE=rust:1.95-bookworm
# What it is put on: an image with the same C library and no shell, or `scratch`, to which the libraries are added.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build

# The dependencies alone, built against an empty program: this layer stays until they change. Cargo insists on a file
# for each target that the manifest declares.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src tests examples \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && sed -n '/^\[\[test\]\]/,/^name/s|^name = "\(.*\)"|tests/\1.rs|p' Cargo.toml | xargs -r touch \
    && sed -n '/^\[\[example\]\]/,/^name/s|^name = "\(.*\)"|examples/\1.rs|p' Cargo.toml | xargs -r touch \
    && cargo build --release --locked --bin sftp-s3-connector

# Then the program. Copied files keep their times, which may be older than the empty program's build.
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin sftp-s3-connector

# What goes into the image, at its place. `scratch` has no C library, no loader, no names of users and no order in which
# to look for hosts.
ARG RUNTIME_IMAGE
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs \
    && cp target/release/sftp-s3-connector /image/usr/local/bin/ \
    && cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && if [ "$RUNTIME_IMAGE" = scratch ]; then \
        ldd target/release/sftp-s3-connector | grep -o '/[^ ]*' | xargs cp -L --parents --target-directory /image \
        && echo 'nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin' > /image/etc/passwd \
        && echo 'nonroot:x:65532:' > /image/etc/group \
        && echo 'hosts: files dns' > /image/etc/nsswitch.conf; \
    fi

FROM ${RUNTIME_IMAGE}
COPY --from=build /image/ /
# What one thread frees serves the others: without it each decoder's thread keeps memory of its own (glibc's arenas).
ENV MALLOC_ARENA_MAX=1
# By number, so that `runAsNonRoot` can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/sftp-s3-connector"]

# Last, as they change with every build.
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="sftp-s3-connector" \
    org.opencontainers.image.description="Fetches a partner's files over SFTP and delivers them to S3" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
