"""The prediction API. HTTP only: what is decided or done stands in `dosel`.

uvicorn --factory app.main:create_app
"""
