"""One sub-command of `tunechat` a module."""
