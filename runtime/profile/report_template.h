/* runtime/profile/report.html as the build found it, ended by a NUL byte. */
#ifndef MHP_RUNTIME_PROFILE_REPORT_TEMPLATE_H
#define MHP_RUNTIME_PROFILE_REPORT_TEMPLATE_H

extern const char mhp_report_template[];

#endif
