"""The outside data API: plays a third party that hands out Covertype in ten batches a group.

It knows nothing of dosel and speaks the contract of the course's API, in Spanish where that one does.

    settings   what the environment asks for
    columns    the thirteen columns, their words and codes
    data       where the rows come from: a CSV, `fetch_covtype` or the generator
    tables     the CSV reader and the cached download
    published  the published statistics of Covertype
    generator  rows made up from those statistics
    sampling   which rows a batch holds
    state      which batch a group has reached, on disk
    main       the HTTP routes
"""
