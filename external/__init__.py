"""The outside data API: a third party that serves Covertype in ten batches for each group.

It imports nothing of dosel, and has the contract of the course's API, with its Spanish texts.

    settings   settings from the environment
    columns    the thirteen columns, their words and codes
    data       chooses the rows: a CSV, the download or the generator
    table      the CSV reader
    download   the cached download
    published  the published statistics of Covertype
    generator  rows generated from those statistics
    sampling   the rows of a batch
    drift      simulated drift
    state      each group's position, on disk
    main       the HTTP routes
"""
