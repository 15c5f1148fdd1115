"""Files that are read and written: pictures, arrays, figures."""
