"""The prediction API. It only speaks HTTP; `dosel` makes the decisions and does the work.

python -m app.server app.main:create_app
"""
