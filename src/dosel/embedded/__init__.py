"""The embedded platform: every service as a process of this machine, without Docker and without root.

`up` starts the services, shows the pipeline's progress and waits for predictions. All files but
the signing key are in one folder, all services listen on 127.0.0.1, and `down` finds and stops every process.
"""
