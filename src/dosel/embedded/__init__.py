"""The embedded platform: every service as a process of this machine, without Docker and without root.

`up` starts what is not running, shows the pipeline at work and waits for the first prediction; everything
it writes is in one folder, everything it starts listens on 127.0.0.1 and is found again to be stopped.
"""
