"""Questions and the data sets they come from: `catalogue.DATASETS` lists them, and one file reads each format."""
