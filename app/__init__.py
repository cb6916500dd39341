"""The prediction API. It only speaks HTTP; `dosel` makes the decisions and does the work.

uvicorn --factory app.main:create_app
"""
