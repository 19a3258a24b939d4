# ROS 2 from apt, torch from pip. The README has the `docker run` lines.
#
#   docker build -t hybriddepth_ros .
#   docker build -t hybriddepth_ros --build-arg ROS_DISTRO=kilted .
#   docker build -t hybriddepth_ros --build-arg TORCH_INDEX=<url> .
#
# The default image runs on a GPU (docker run --gpus all) and on a CPU. PyTorch's installation page names an index
# of CPU-only builds: given as TORCH_INDEX it makes the image several gigabytes smaller.
#
# Run it with --ipc host (or --shm-size 512m): images travel through /dev/shm, of which a container has 64 MB.

ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base
ARG TORCH_INDEX=""

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      build-essential cmake python3-dev python3-pip python3-venv v4l-utils \
 && rm -rf /var/lib/apt/lists/*

# First what changes rarely: two manifests decide what rosdep installs, two lists what pip does.
WORKDIR /ws
COPY package.xml src/hybriddepth_ros/package.xml
COPY ros2_ws/src/hybriddepth_msgs/package.xml src/hybriddepth_msgs/package.xml
RUN apt-get update \
 && rosdep update --rosdistro "${ROS_DISTRO}" \
 && DEBIAN_FRONTEND=noninteractive rosdep install --from-paths src --ignore-src --rosdistro "${ROS_DISTRO}" -y \
 && rm -rf /var/lib/apt/lists/*

# Ubuntu's Python is externally managed (PEP 668), so pip works in an environment that also sees the system's
# packages. numpy stays the system's 1.26: apt's cv_bridge is compiled against numpy 1, and an environment's numpy
# would come before the system's.
ENV VIRTUAL_ENV=/ws/venv
ENV PATH=${VIRTUAL_ENV}/bin:${PATH}
COPY constraints constraints
RUN python3 -m venv --system-site-packages "${VIRTUAL_ENV}" \
 && torch="$(grep '^torch==' "constraints/${ROS_DISTRO}.txt")" \
 && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "${torch}" 'numpy<2' \
 && pip install --no-cache-dir -r constraints/requirements-ros-install.txt \
 && python3 -c 'import numpy; assert numpy.__version__ < "2", numpy.__version__'

# The build itself runs on the system's Python; the scripts it makes run the environment's (setup.cfg).
COPY . src/hybriddepth_ros
RUN cp -r src/hybriddepth_ros/ros2_ws/src/hybriddepth_msgs/. src/hybriddepth_msgs/ \
 && rm -rf src/hybriddepth_ros/ros2_ws \
 && source "/opt/ros/${ROS_DISTRO}/setup.bash" \
 && colcon build --base-paths src --merge-install \
      --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DPython3_EXECUTABLE=/usr/bin/python3 \
 && rm -rf build log

COPY --chmod=0755 docker/entrypoint.sh /usr/local/bin/hybriddepth-entrypoint

# Not root, but in the groups that own cameras and serial ports. /data is for bags and results. The base image has a
# user `ubuntu` with the id that a machine's first user has; ours takes the id, so that files in /data fit.
RUN { userdel --remove ubuntu 2>/dev/null || true; } \
 && useradd --create-home --uid 1000 --groups video,dialout robot \
 && install -d -o robot -g robot /data
USER robot
WORKDIR /data

ENTRYPOINT ["hybriddepth-entrypoint"]
CMD ["ros2", "launch", "hybriddepth_ros", "depth.launch.py"]
