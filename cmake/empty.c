/* Stands in for a folder that holds only headers: a static library needs one source. */
typedef int mhp_folder_holds_only_headers;
