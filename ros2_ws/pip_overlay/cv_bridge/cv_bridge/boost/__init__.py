"""Where upstream keeps its C extension; scripts import `cv_bridge.boost.cv_bridge_boost` by name."""
