# The images of fedstep: `coordinator` (its commands too), `client` (no Optuna, no SQLAlchemy), and for
# docker-compose.yml `dashboard` and `database`. Nothing here needs BuildKit.
#
#   docker build --target client --tag fedstep-client .
#   docker build --target client --tag fedstep-client --build-arg TORCH=cu126 .   (CUDA; the wheels bring its libraries)
#
# What changes seldom comes first: PyTorch, then other packages, then fedstep itself.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG POSTGRES_IMAGE=postgres:15-bookworm

FROM ${PYTHON_IMAGE} AS base
RUN python3 -m venv /opt/fedstep \
 && groupadd --gid 1000 fedstep && useradd --uid 1000 --gid fedstep --home-dir /tmp --no-create-home fedstep
# USER: whoever runs as another uid has no name otherwise. One thread, unless --threads says more:
# containers of one machine do not know of each other.
ENV PATH=/opt/fedstep/bin:$PATH USER=fedstep HOME=/tmp MPLCONFIGDIR=/tmp PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /fedstep
# The version is that of constraints.txt, which changes more often. The build is named (+cpu, +cu126): no other can be
# taken, and no step but this one asks PyTorch's own index.
ARG TORCH_VERSION=2.13.0
ARG TORCH=cpu
RUN pip install --no-deps --retries 1 --extra-index-url "https://download.pytorch.org/whl/${TORCH}" \
      "torch==${TORCH_VERSION}+${TORCH}"

FROM base AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY common common
COPY client client
COPY server server
RUN pip wheel --quiet --no-deps --wheel-dir /wheel .

# Apart, so that a change of pyproject.toml that changes none of these lists installs nothing anew.
FROM ${PYTHON_IMAGE} AS lists
WORKDIR /lists
COPY pyproject.toml deploy/packages.py ./
ARG TORCH=cpu
# More that tasks may want, such as "vision parquet". torchvision's build is that of PyTorch.
ARG EXTRAS=
RUN python3 packages.py client $EXTRAS >client.txt && python3 packages.py server postgres >coordinator.txt \
 && python3 packages.py dashboard >dashboard.txt \
 && case " $EXTRAS " in *" vision "*) echo "--extra-index-url https://download.pytorch.org/whl/$TORCH" >>client.txt;; esac

FROM base AS client-packages
COPY constraints.txt ./
COPY --from=lists /lists/client.txt ./
RUN pip install --constraint constraints.txt --requirement client.txt

FROM client-packages AS coordinator-packages
COPY --from=lists /lists/coordinator.txt ./
RUN pip install --constraint constraints.txt --requirement coordinator.txt

FROM client-packages AS client
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
COPY deploy/compose/client.sh /usr/local/bin/fedstep-client
# What a volume is made of when it is mounted first: any uid may write to it.
RUN mkdir -m 1777 /shares
USER 1000:1000
ENTRYPOINT ["fedstep"]
CMD ["client", "--help"]

FROM coordinator-packages AS coordinator
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
COPY deploy/compose/study.sh /usr/local/bin/fedstep-study
COPY deploy/credentials.py deploy/compose/folder.sh deploy/compose/capable.py /fedstep/
# A chown that needs no root: it may do that one thing where a container is given the capability, and nothing elsewhere.
RUN cp /bin/chown /usr/local/bin/chown-folder && python capable.py /usr/local/bin/chown-folder \
 && mkdir -m 1777 /data /results /secrets \
 && for role in authority coordinator client operator dashboard database; do mkdir -m 1777 "/secrets/$role"; done
USER 1000:1000
EXPOSE 7433
ENTRYPOINT ["fedstep"]
CMD ["coordinator", "--help"]

FROM coordinator-packages AS dashboard
COPY --from=lists /lists/dashboard.txt ./
RUN pip install --constraint constraints.txt --requirement dashboard.txt
COPY deploy/compose/dashboard.py ./
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["python", "/fedstep/dashboard.py"]

FROM ${POSTGRES_IMAGE} AS database
COPY deploy/compose/database.sh /usr/local/bin/fedstep-database
RUN mkdir -p /var/lib/postgresql/data && chown postgres:postgres /var/lib/postgresql/data
USER postgres
ENTRYPOINT ["fedstep-database"]
CMD []
