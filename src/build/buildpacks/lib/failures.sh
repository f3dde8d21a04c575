# What failed in a language's tool, why, and what to do, by what the tool printed; sourced by bash
# after common.sh. Each `NAME_failed LOG` is for the log of one tool. The first cause that fits is
# told: the rest mostly follows from it.

# said PATTERN: the log has it. What the parentheses of the extended expression found is in `found`.
said() {
  local line
  found=()
  line=$(grep -a -m 1 -E -- "$1" "$log") || return 1
  [[ $line =~ $1 ]] || return 1
  found=("${BASH_REMATCH[@]:1}")
}

# One cause, what to do in lines.
because() {
  local line
  for line in "$@"; do warning "$line"; done
}

out_of_memory() {
  said 'OutOfMemoryError|insufficient memory for the Java Runtime|GC overhead limit exceeded' || return 1
  because "It ran out of memory. Give it more: manifold config:set $1"
}

# What has come to its bound (the build, its cache, what the dyno writes elsewhere) the platform tells
# where it is still full when the build has ended.
no_room_is_left() {
  said 'No space left on device' || return 1
  because "There was no room left to write: leave out what the app does not need, or empty the cache (manifold builds:cache:purge)."
}

# The stack's Java, by its first number.
java_version() { javac -version 2>&1 | grep -oE '[0-9]+' | head -n 1; }

# A compiler of Scala reads no classes of a Java that came much later. $1 is the tool's name, $2
# where its version stands.
java_is_too_new() {
  said 'UnsupportedClassVersionError|class file has wrong version|bad constant pool index|in compiler mirror not found' || return 1
  because "A library, or this version of $1 or Scala, does not go with the stack's Java $(java_version)." \
    "Raise $2 and scalaVersion, or choose another stack (\`manifold stack\`)."
}

maven_failed() {
  local log=$1 found
  warning "Failed to build app with Maven."
  if said '(release version|invalid target release:|invalid source release:) *([0-9.]+)'; then
    because "pom.xml asks for Java ${found[1]}; the stack $STACK has Java $(java_version)." \
      "Set maven.compiler.release in its properties to what the stack has, or choose another stack (\`manifold stack\`)."
  elif said '(Source|Target) option ([0-9.]+) is no longer supported. Use ([0-9.]+) or later'; then
    because "pom.xml asks for Java ${found[1]}, which the stack's Java $(java_version) cannot compile for any more." \
      "Set maven.compiler.source and maven.compiler.target in its properties to ${found[2]} or later."
  elif said 'RequireJavaVersion failed|Detected JDK .* is not in the allowed range'; then
    because "pom.xml allows other versions of Java than the stack's $(java_version) (maven-enforcer-plugin, requireJavaVersion)." \
      "Allow it there, or choose another stack (\`manifold stack\`)."
  elif said 'ERROR.*maven-default-http-blocker'; then
    because "pom.xml or settings.xml names a repository by http://, which Maven refuses: use https://."
  elif said 'ERROR.*Could not find artifact ([^ ]+)'; then
    because "No repository that was asked has ${found[0]}." \
      "Check its name and version in pom.xml. A private repository and its credentials belong into settings.xml (or set MAVEN_SETTINGS_PATH)."
  elif said 'ERROR.*Could not transfer (artifact|metadata) ([^ ]+)|ERROR.*status code: 40[13]' ||
    { said 'No plugin found for prefix' && said 'Could not transfer (artifact|metadata) ([^ ]+)'; }; then
    because "A repository could not be reached, or did not let us in${found[1]:+: ${found[1]} was not fetched}." \
      "If it is private, check the credentials in settings.xml. Else try again later."
  elif said 'Non-parseable POM|Malformed POM|The build could not read [0-9]+ project'; then
    because "Maven cannot read pom.xml: see the line with its place above." \
      "\`mvn validate\` on your machine tells the same."
  elif said 'Unknown lifecycle phase "([^"]*)"|No plugin found for prefix .([^ '"'"']*)'; then
    because "Maven knows no goal \`${found[0]:-${found[1]}}\`: correct the config var MAVEN_CUSTOM_GOALS (now: ${MAVEN_CUSTOM_GOALS:-not set})."
  elif said 'Could not find or load main class org.apache.maven.wrapper|maven-wrapper.jar'; then
    because "The wrapper is not complete: commit all of .mvn/wrapper (\`mvn wrapper:wrapper\` makes it), or remove mvnw to use the stack's Maven."
  elif said 'COMPILATION ERROR'; then
    because "The sources do not compile with the stack's Java $(java_version): see the lines with ERROR above." \
      "Files that differ only in case, or that are not committed, are missing here: \`git status --ignored\` shows those."
  elif said 'There (are|were) test failures'; then
    because "Tests failed. Without MAVEN_CUSTOM_OPTS and MAVEN_CUSTOM_GOALS a build runs none."
  elif ! out_of_memory "MAVEN_OPTS=-Xmx768m"; then
    because "Its output above says why; \`mvn clean install\` on your machine does the same."
  fi
}

sbt_failed() {
  local log=$1 found
  warning "Failed to build with sbt."
  if said 'Not a valid (command|key): stage'; then
    because "The build has no task \`stage\`, which makes what the dyno starts." \
      "Add sbt-native-packager to project/plugins.sbt and enablePlugins(JavaAppPackaging) to build.sbt, or name other tasks: manifold config:set SBT_TASKS=..."
  elif said 'Not a valid (command|key): ([^ ]+)'; then
    because "The build has no task \`${found[1]}\`: correct the config vars SBT_TASKS and SBT_PRE_TASKS."
  elif said 'is already defined as (object|class|case class)'; then
    because "A class is there twice; if it was renamed or moved, what is left of earlier builds may be the cause." \
      "Start anew: manifold builds:cache:purge, then deploy again."
  elif said 'unresolved dependency: ([^ :]+)|Error downloading ([^ ]+)|([^ ]+): not found$'; then
    because "No repository that was asked has ${found[0]:-${found[1]:-${found[2]}}}, or none could be reached." \
      "Check its name and its version, also that it exists for this version of Scala (%% and scalaVersion)."
  elif java_is_too_new sbt "sbt.version in project/build.properties"; then
    :
  elif said 'Could not (retrieve|find or load main class) .*(sbt|xsbt)'; then
    because "sbt itself could not be fetched: check sbt.version in project/build.properties, or try again later."
  elif said '\(.*[Cc]ompileIncremental\) Compilation failed|errors? found$'; then
    because "The sources do not compile: see the lines with error above."
  elif ! out_of_memory "SBT_OPTS='-Xmx900m -Xss2m'"; then
    because "Its output above says why; the same tasks on your machine should do the same."
  fi
}

mill_failed() {
  local log=$1 found
  warning "Failed to build with Mill."
  if java_is_too_new Mill .mill-version; then
    :
  elif said 'Cannot resolve ([^ ]+)\. '; then
    because "The build has no task \`${found[0]}\`: correct the config var MILL_TASK."
  elif said 'Resolution failed for' && said '^ +([^ :]+:[^ :]+:[^ :]+) *$'; then
    because "No repository that was asked has ${found[0]}, or none could be reached." \
      "Check its name and its version, also that it exists for this version of Scala (two colons and scalaVersion)."
  elif said '(build\.(sc|mill):[0-9]+(:[0-9]+)?)'; then
    because "Mill cannot compile the build at ${found[0]}: see above."
  elif said ' Compilation failed$|errors? found$'; then
    because "The sources do not compile: see the lines with error above."
  elif ! out_of_memory "JAVA_TOOL_OPTIONS=-Xmx768m"; then
    because "Its output above says why; the same task on your machine should do the same."
  fi
}

leiningen_failed() {
  local log=$1 found
  warning "Failed to build with Leiningen."
  if said 'Could not find artifact ([^ ]+)'; then
    because "No repository that was asked has ${found[0]}." \
      "Check its name and version in project.clj; one that is not in Clojars or Maven Central needs its place in :repositories."
  elif said 'Could not transfer artifact ([^ ]+)|(Unknown ?Host|ConnectException)|Failed to download'; then
    because "A repository could not be reached${found[0]:+: ${found[0]} was not fetched}." \
      "Try again later. bin/lein fetches Leiningen itself: without it the stack's is used."
  elif said "'([^']*)' is not a task"; then
    because "Leiningen knows no task \`${found[0]}\`: correct the config var LEIN_BUILD_TASK or BUILD_COMMAND, or add its plugin to :plugins in project.clj."
  elif said 'Error loading .*project\.clj|[(/ ]project\.clj:[0-9]+|No project\.clj found'; then
    because "Leiningen cannot read project.clj: see above for the place."
  elif said 'Could not locate ([^ ]+)__init\.class'; then
    because "There is no namespace ${found[0]//\//.} on the classpath." \
      "Its library is missing in :dependencies (those of the profile :dev are left out), or its file is not committed. A file's name has _ where its namespace has -."
  elif said 'Syntax error .*(compiling|macroexpanding|reading source).* at \(([^)]*)\)|compiling:\(([^)]*)\)'; then
    because "The place ${found[1]:-${found[2]}} does not compile: see above."
  elif said 'UnsupportedClassVersionError|has been compiled by a more recent version of the Java'; then
    because "A library asks for a newer Java than the stack's $(java_version): take an older version of it, or choose another stack (\`manifold stack\`)."
  elif ! out_of_memory "LEIN_JVM_OPTS=-Xmx768m"; then
    because "Its output above says why; the same command on your machine should do the same."
  fi
}

collectstatic_failed() {
  local log=$1 found
  warning "Error while running '\$ python manage.py collectstatic --noinput'."
  warning "See the traceback above for details."
  if said 'without having set the STATIC_ROOT setting'; then
    because "The settings name no place to collect to. Add: STATIC_ROOT = BASE_DIR / \"staticfiles\""
  elif said "The SECRET_KEY setting must not be empty"; then
    because "SECRET_KEY is empty: if the settings take it from a config var, set that one: manifold config:set SECRET_KEY=..."
  elif said "^KeyError: '([^']+)'|Set the ([^ ]+) environment variable|^decouple\.UndefinedValueError: ([^ ]+) not found"; then
    found=("${found[0]:-${found[1]:-${found[2]}}}")
    because "The settings read \`${found[0]}\`, which builds see only as a config var: manifold config:set ${found[0]}=..."
  elif said "ModuleNotFoundError: No module named '([^']+)'|ImportError: cannot import name '([^']+)'"; then
    because "Python finds no \`${found[0]:-${found[1]}}\`: add its package to what is installed (requirements.txt or the lock file), or commit its file."
  elif said "FileNotFoundError: .*: '([^']+)'"; then
    because "\`${found[0]#"${build_dir:-}/"}\` is missing: STATICFILES_DIRS or the settings name it. Git keeps no empty directories, and .gitignore may hide it."
  elif said "The file '([^']+)' could not be found|Missing staticfiles manifest entry for '([^']+)'"; then
    because "A style sheet or a script refers to \`${found[0]:-${found[1]}}\`, which is not there: correct it, or use a storage that does not look (CompressedStaticFilesStorage)."
  elif said 'OperationalError|could not connect to server|Connection refused'; then
    because "The settings or an app use the database or another service while they are loaded. A build may have none: move that behind the start of the app."
  elif said '^(SyntaxError|IndentationError|TabError): (.*)'; then
    because "A file is no Python of this version: ${found[1]}."
  elif said '^([A-Za-z_.]+(Error|Exception|ImproperlyConfigured)): (.+)'; then
    because "${found[0]##*.}: ${found[2]}"
  fi
  because "To go on without it: manifold config:set DISABLE_COLLECTSTATIC=1"
}

# What is compiled in the build finds something of the system not there.
native_is_missing() {
  local what
  if said "fatal error: ([^ :]+): No such file|Can't find the '([^ ']+) header|([A-Za-z0-9_./-]+\.h) (is |was )?not found"; then
    what="the header ${found[0]:-${found[1]:-${found[2]}}}"
  elif said '([A-Za-z0-9]+[-_]config)( executable)?:?( command| is)? not found'; then
    what="the program ${found[0]}"
  elif said "Package '?([A-Za-z0-9.+_-]+)'?(, required by [^,]*,)? (was )?not found|No package '([^']+)' found"; then
    what="the library ${found[0]:-${found[3]}} (asked for by pkg-config)"
  elif said 'cannot find -l([^ :]+)'; then
    what="the library ${found[0]}"
  elif said '^checking for ([^ ]+\.h)\.\.\. *no$'; then
    what="the header ${found[0]}"
  elif said "(unable to execute '|command '|: )([a-z0-9_-]*(gcc|g\+\+|cc|make))'?(: | failed: )(No such file|command not found|not found)"; then
    what="the program ${found[1]}"
  else
    return 1
  fi
  because "A dependency is compiled here and needs $what, which the stack $STACK does not have." \
    "Take a version of it that is published compiled, or a stack that has this (\`manifold stack\`); on \`host\`, install the package -dev of it."
}

pip_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with pip."
  if said "Invalid requirement: ['\"]?([^'\"]+)"; then
    local what=${found[0]} place='A requirements file'
    if said '\(from line ([0-9]+) of ([^)]+)\)'; then place="Line ${found[0]} of ${found[1]#"${build_dir:-}/"}"; fi
    if said 'It looks like a path'; then
      because "$place names the path $what, which is not there: commit it, or see whether .slugignore or .gitignore hides it."
    else
      because "$place is no requirement: $what." \
        "It is written NAME==VERSION, one a line; \`pip freeze\` writes them."
    fi
  elif said "Could not open requirements file: .*: '([^']+)'"; then
    because "\`${found[0]#"${build_dir:-}/"}\` is named by a requirements file and is not there: commit it."
  elif said "([^ '\"]+)['\"]? (does not appear to be a Python project|is not a valid editable requirement)"; then
    because "\`${found[0]#"${build_dir:-}/"}\` is named as a path and is no Python project: commit it with its pyproject.toml or setup.py."
  elif said 'CERTIFICATE_VERIFY_FAILED'; then
    because "The package index shows a certificate that nobody here trusts: correct PIP_INDEX_URL, or let the host trust who issued it."
  elif said 'HTTP error (401|403)|(401|403) (Client )?Error'; then
    because "The package index let us not in (${found[0]:-${found[1]}}): check the name and password in PIP_INDEX_URL or PIP_EXTRA_INDEX_URL."
  elif { said 'from versions: none' || said 'Max retries exceeded|Read timed out|ConnectTimeout'; } &&
    said 'Failed to establish a new connection|Name or service not known|[Nn]ame resolution|Connection refused|Network is unreachable|Max retries exceeded|timed out|ConnectTimeout'; then
    because "The package index could not be reached: check PIP_INDEX_URL if it is set, else try again later."
  elif said "Package '([^']+)' requires a different Python: ([0-9.]+) not in '([^']+)'"; then
    because "${found[0]} asks for Python ${found[2]}; the stack $STACK has ${found[1]}." \
      "Take an older version of it, or choose another stack (\`manifold stack\`)."
  elif said 'Could not find a version that satisfies the requirement ([^ ]+).* \(from versions: none\)'; then
    because "The package index has no ${found[0]} for this Python: check the name, which may differ from what is imported." \
      "One of an index of your own needs PIP_EXTRA_INDEX_URL: manifold config:set PIP_EXTRA_INDEX_URL=..."
  elif said '(No matching distribution found for|Could not find a version that satisfies the requirement) ([^ ]+)'; then
    local wanted=${found[1]} few=''
    said 'Ignored the following versions that require a different python version' &&
      few=" Some need another Python than the stack's."
    because "No version that is published fits $wanted; those that are stand above.$few" \
      "Correct it in the requirements, or choose another stack (\`manifold stack\`)."
  elif said 'ResolutionImpossible|Cannot install .* because these package versions have conflicting dependencies'; then
    because "The versions that are asked for exclude each other: see \"The conflict is caused by\" above." \
      "Loosen one of them; \`pip install -r requirements.txt\` on your machine tells the same."
  elif said 'DO NOT MATCH THE HASHES|Hashes are required in --require-hashes mode'; then
    because "A package is not the one that the requirements have the hash of: write them anew (\`pip-compile --generate-hashes\`, \`pipenv lock\`)."
  elif native_is_missing; then
    :
  elif said "ModuleNotFoundError: No module named '([^']+)'"; then
    because "A package is built here and needs ${found[0]} for that, which it does not say or which this Python has no more." \
      "Take a newer version of it."
  elif no_room_is_left; then
    :
  else
    because "Its output above says why; \`pip install -r requirements.txt\` in a new environment on your machine should do the same."
  fi
}

npm_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with npm."
  if said 'notsup Required: *(.+)$'; then
    local required=${found[0]} who=''
    if said 'Not compatible with your version of node/npm: ([^ ]+)'; then who=${found[0]}; fi
    because "${who:-A package} asks for $required, and gets $(said 'notsup Actual: *(.+)$' && echo "${found[0]}")." \
      "Set engines.node in package.json to a version that fits: it is fetched then. Or take another version of the package."
  elif said 'No matching version found for ([^ ]+)\.|notarget .* for ([^ ]+)\.$'; then
    found=("${found[0]:-${found[1]}}")
    because "No version that is published fits ${found[0]}." \
      "Correct it in package.json (\`npm view ${found[0]%@*} versions\` lists them), run \`npm install\`, and commit package-lock.json."
  elif said "404 +The requested resource '([^']+)'|404 +'([^']+)' is not in"; then
    because "The registry has no ${found[0]:-${found[1]}}, or does not show it to us: check its name." \
      "A private one needs a token: .npmrc with //HOST/:_authToken=\${NPM_TOKEN}, and manifold config:set NPM_TOKEN=..."
  elif said 'code (E401|E403|ENEEDAUTH)'; then
    because "The registry let us not in (${found[0]}): check the token in .npmrc or the config var that it names."
  elif said 'code (ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|UNABLE_TO_[A-Z_]+|SELF_SIGNED[A-Z_]+)'; then
    local code=${found[0]}
    if ! said 'request to (https?://[^/ ]+)'; then found=(''); fi
    because "The registry${found[0]:+ ${found[0]}} could not be reached ($code): check it in .npmrc or NPM_CONFIG_REGISTRY if it is set, else try again later."
  elif said "can only install packages when your package.json and|lock file's [^ ]+ does not satisfy|Missing: [^ ]+ from lock file"; then
    because "package-lock.json is not that of package.json: run \`npm install\`, and commit both."
  elif said 'can only install with an existing package-lock|code EJSONPARSE|lockfileVersion'; then
    because "package-lock.json cannot be read (is it merged by hand, or of an old npm?): remove it, run \`npm install\`, and commit it."
  elif said 'code ERESOLVE'; then
    because "The versions that are asked for exclude each other: see \"Could not resolve dependency\" above." \
      "Change one of them; \`npm install\` on your machine tells the same. To do as npm 6 did: legacy-peer-deps=true in .npmrc."
  elif said 'code EINTEGRITY|integrity checksum failed'; then
    because "A package is not the one that package-lock.json has the checksum of." \
      "Start anew (manifold builds:cache:purge); if that is not it, remove the lock, run \`npm install\`, and commit it."
  elif native_is_missing; then
    :
  elif said 'heap out of memory'; then
    because "It ran out of memory: an install script needs more than a build has."
  elif said 'npm (ERR!|error) path (.*/node_modules/)?([^ ]+)$' && said 'npm (ERR!|error) command '; then
    said 'npm (ERR!|error) path (.*/node_modules/)?([^ ]+)$'
    because "The install script of ${found[2]#"${build_dir:-}"} failed: see above."
  else
    because "Its output above says why; \`npm ci\` in a new clone on your machine should do the same."
  fi
}

bundler_failed() {
  local log=$1 found
  warning "Bundler could not install the gems."
  if said '^Your Ruby version is ([0-9.]+[0-9]), but your Gemfile specified (.+)$'; then
    because "The Gemfile asks for Ruby ${found[1]}; the stack $STACK has ${found[0]}." \
      "Change it, or choose another stack (\`manifold stack\`)."
  elif said 'error parsing .?(Gemfile|[^ ]*\.gemspec)'; then
    because "Bundler cannot read the ${found[0]}: see the line with its place above."
  elif said "error in (your )?(Gemfile\.lock)|Gemfile\.lock contains merge conflicts|Your lockfile (is unreadable|contains)"; then
    because "Gemfile.lock cannot be read: remove what a merge left in it, or make it anew (\`bundle lock\`), and commit it."
  elif said 'deployment mode after changing|[Ff]rozen mode is set|dependencies in your gemfile changed|bundle is frozen|in deployment mode'; then
    because "Gemfile.lock is not that of the Gemfile: run \`bundle install\`, and commit both."
  elif said 'bundle only supports platforms .* but your local platform is ([^ .]+)'; then
    because "Gemfile.lock has no gems for ${found[0]}, which the stack is: run \`bundle lock --add-platform ${found[0]}\`, and commit it."
  elif said 'Authentication is required for ([^ ]+)|Bad username or password for ([^ ]+)'; then
    found=("${found[0]:-${found[1]}}") && found=("${found[0]%.}")
    because "The source ${found[0]} let us not in: its credentials belong into a config var, BUNDLE_ and the host's name in capitals, each dot as __." \
      "manifold config:set BUNDLE_GEMS__EXAMPLE__COM=USER:PASSWORD"
  elif said '(Could not reach host|Could not fetch specs from|Network error while fetching|Could not download gem from|Could not verify the SSL certificate for) ([^ ]+)'; then
    because "The source ${found[1]%.} could not be reached: check it in the Gemfile, or try again later."
  elif said 'is locked to ([^ ]+ \([^)]+\)).* but that version (can no longer be|could not be) found'; then
    because "Gemfile.lock names ${found[0]}, which its source has no more: run \`bundle update ${found[0]%% *}\`, and commit it."
  elif said '([^ ]+) requires ruby version ([^,]+), which is incompatible with the current version, (ruby )?([0-9.]+)'; then
    because "${found[0]} asks for Ruby ${found[1]}; the stack $STACK has ${found[3]}." \
      "Take an older version of it, or choose another stack (\`manifold stack\`)."
  elif said "Could not find gem '([^']+)'|Could not find ([^ ]+) in (any|locally|rubygems|the)"; then
    because "No source that is named has ${found[0]:-${found[1]}}: check its name and version in the Gemfile." \
      "Those of the stack itself stand below; a private one needs its source block."
  elif said 'could not find compatible versions|Could not find compatible versions|version solving has failed'; then
    because "The versions that are asked for exclude each other: see above. Loosen one of them; \`bundle update\` on your machine tells the same."
  elif native_is_missing; then
    :
  elif said 'An error occurred while installing ([^ ]+ \([^)]+\))'; then
    because "${found[0]} could not be installed: what its own tools said stands above."
  else
    because "Its output above says why; \`bundle install\` in a new clone on your machine should do the same."
  fi
}

# What the installers of Node.js have in common: $1 is the lock's name, $2 how it is made anew.
registry_is_out_of_reach() {
  said '(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNRESET|ENETUNREACH|EHOSTUNREACH|UNABLE_TO_[A-Z_]+|SELF_SIGNED[A-Z_]+)' || return 1
  because "The registry could not be reached (${found[0]}): check the one that the lock or the settings name, else try again later."
}

engine_is_wrong() {
  because "$1 asks for node $2, and gets $3." \
    "Set engines.node in package.json to a version that fits: it is fetched then. Or take another version of the package."
}

yarn_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with Yarn."
  if said 'lockfile needs to be updated, but yarn was run with|lockfile would have been modified by this install'; then
    because "yarn.lock is not that of package.json: run \`yarn install\`, and commit both."
  elif said 'yarn\.lock$|YN0047|in (.*/)?yarn\.lock'; then
    because "yarn.lock cannot be read (is it merged by hand, or of another Yarn?): correct it, or remove it and run \`yarn install\`, and commit it."
  elif said 'SyntaxError: (.*/)?([^/]*/?package\.json): '; then
    because "${found[1]} is not valid JSON: see the line with its place above."
  elif said "Couldn't find package \"([^\"]+)\"|YN0035: [^A-Za-z0-9@]*([^ ]+): Package not found"; then
    because "The registry has no ${found[0]:-${found[1]}}, or does not show it to us: check its name." \
      "A private one needs a token: \`npmAuthToken: \"\${NPM_TOKEN}\"\` in .yarnrc.yml (Yarn 1: .npmrc), and manifold config:set NPM_TOKEN=..."
  elif said "Couldn't find any versions for \"([^\"]+)\" that matches \"([^\"]+)\"|YN0082: [^A-Za-z0-9@]*([^ ]+): No candidates found"; then
    because "No version that is published fits ${found[2]:-${found[0]}@${found[1]}}." \
      "Correct it in package.json, run \`yarn install\`, and commit yarn.lock."
  elif said 'error ([^ ]+): The engine "node" is incompatible with this module\. Expected version "([^"]+)"\. Got "([^"]+)"'; then
    engine_is_wrong "${found[@]}"
  elif said 'Request failed "(401|403)|YN0041'; then
    because "The registry let us not in: check the token in .yarnrc.yml or .npmrc, or the config var that it names."
  elif said "YN0018: [^A-Za-z0-9@]*([^ ]+): The remote archive doesn't match|Integrity check failed for \"([^\"]+)\""; then
    because "${found[0]:-${found[1]}} is not the one that yarn.lock has the checksum of." \
      "Start anew (manifold builds:cache:purge); if that is not it, remove it from the lock, run \`yarn install\`, and commit it."
  elif registry_is_out_of_reach; then
    :
  elif native_is_missing; then
    :
  elif said 'heap out of memory'; then
    because "It ran out of memory: an install script needs more than a build has."
  elif said "YN0009: [^A-Za-z0-9@]*([^ ]+) couldn't be built"; then
    because "The install script of ${found[0]} failed. To see what it says: enableInlineBuilds: true in .yarnrc.yml."
  elif said 'error (.*/node_modules/([^ :]+))?:? ?Command failed'; then
    because "The install script of ${found[1]:-the app} failed: see above."
  else
    because "Its output above says why; \`yarn install\` in a new clone on your machine should do the same."
  fi
}

pnpm_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with pnpm."
  if said 'ERR_PNPM_OUTDATED_LOCKFILE'; then
    because "pnpm-lock.yaml is not that of package.json: run \`pnpm install\`, and commit both."
  elif said 'ERR_PNPM_LOCKFILE_BREAKING_CHANGE|Ignoring not compatible lockfile'; then
    because "pnpm-lock.yaml is of another pnpm than the one that reads it here: name yours in package.json (\"packageManager\": \"pnpm@VERSION\"), or write the lock anew."
  elif said 'ERR_PNPM_NO_LOCKFILE'; then
    because "pnpm-lock.yaml is missing: run \`pnpm install\`, and commit it."
  elif said 'ERR_PNPM_BROKEN_LOCKFILE'; then
    because "pnpm-lock.yaml cannot be read (is it merged by hand?): run \`pnpm install\`, and commit it."
  elif said 'ERR_PNPM_FETCH_(401|403)'; then
    because "The registry let us not in (${found[0]}): check the token in .npmrc or the config var that it names."
  elif said 'ERR_PNPM_FETCH_404.*GET ([^ ]+):'; then
    local url=${found[0]}
    said '^([^ ]+) is not in the npm registry' || found=("$url")
    because "The registry has no ${found[0]}, or does not show it to us: check its name and version." \
      "A private one needs a token: .npmrc with //HOST/:_authToken=\${NPM_TOKEN}, and manifold config:set NPM_TOKEN=..."
  elif said 'ERR_PNPM_NO_MATCHING_VERSION.*No matching version found for ([^ ]+)'; then
    because "No version that is published fits ${found[0]}." \
      "Correct it in package.json, run \`pnpm install\`, and commit pnpm-lock.yaml."
  elif said 'ERR_PNPM_TARBALL_INTEGRITY.*checksum for "([^"]+)"'; then
    because "${found[0]##*/} is not the one that pnpm-lock.yaml has the checksum of." \
      "Start anew (manifold builds:cache:purge); if that is not it, remove the lock, run \`pnpm install\`, and commit it."
  elif said 'ERR_PNPM_UNSUPPORTED_ENGINE'; then
    local wanted='' who='The app'
    said '^Expected version: (.+)$' && wanted=${found[0]}
    said 'incompatible with "(.*/node_modules/([^"]+))"' && who=${found[1]}
    said '^Got: v?(.+)$' || found=('another')
    engine_is_wrong "$who" "$wanted" "${found[0]}"
  elif registry_is_out_of_reach; then
    :
  elif native_is_missing; then
    :
  elif said 'heap out of memory'; then
    because "It ran out of memory: an install script needs more than a build has."
  elif said 'ELIFECYCLE|Command failed with exit code'; then
    because "An install script failed: see above."
  else
    because "Its output above says why; \`pnpm install --frozen-lockfile\` in a new clone on your machine should do the same."
  fi
}

# The installer itself comes by pip. True if that was what failed.
installer_is_missing() {
  said "^ERROR: .*(No matching distribution found for|satisfies the requirement) $1( |\$)" || return 1
  because "$1 itself could not be fetched from the package index: check PIP_INDEX_URL if it is set, else try again later."
}

uv_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with uv."
  if said 'lockfile at .uv\.lock. needs to be updated'; then
    because "uv.lock is not that of pyproject.toml: run \`uv lock\`, and commit both."
  elif said 'Failed to parse:? [`]?(.*/)?(uv\.lock|pyproject\.toml)'; then
    because "${found[1]} cannot be read: see the place above. A lock that was merged by hand is made anew by \`uv lock\`."
  elif said 'resolved to Python ([0-9.]+), which is incompatible with .* Python requirement: `([^`]+)`'; then
    because "The app asks for Python ${found[1]}; the stack $STACK has ${found[0]}." \
      "Change requires-python in pyproject.toml, or choose another stack (\`manifold stack\`)."
  elif said 'Hash mismatch for `([^`]+)`'; then
    because "${found[0]} is not the one that uv.lock has the hash of: run \`uv lock --upgrade-package ${found[0]%%=*}\`, and commit it."
  elif said 'HTTP status client error \((401|403)'; then
    because "The package index let us not in (${found[0]}): its credentials belong into config vars, UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD (NAME as in pyproject.toml, in capitals)."
  elif said 'HTTP status client error \((404|410)'; then
    said 'Failed to download `([^`]+)`' || found=('what uv.lock names')
    because "The package index has no ${found[0]} any more: run \`uv lock --upgrade\`, and commit it."
  elif said 'Distribution not found at: (file://)?([^ ]+)'; then
    because "\`${found[1]#"${build_dir:-}/"}\` is named as a path and is not there: commit it, or see whether .slugignore or .gitignore hides it."
  elif said 'No solution found when resolving'; then
    said '(Because .*)$' || found=('the versions that are asked for exclude each other.')
    because "uv.lock is not that of pyproject.toml, and cannot be: ${found[0]}" \
      "Correct it there, run \`uv lock\`, and commit both."
  elif said 'invalid peer certificate'; then
    because "The package index shows a certificate that nobody here trusts: let the host trust who issued it."
  elif said 'error sending request for url|dns error|tcp connect error|operation timed out'; then
    said 'Failed to (download|fetch).*`([^`]+)`' || found=('' 'something')
    because "The package index could not be reached: ${found[1]} was not fetched. Try again later."
  elif installer_is_missing uv || native_is_missing; then
    :
  elif said 'Failed to build `([^`]+)`'; then
    because "${found[0]} is built here, and that failed: see above." \
      "Take a version of it that is published as a wheel."
  elif no_room_is_left; then
    :
  else
    because "Its output above says why; \`uv sync --locked\` in a new clone on your machine should do the same."
  fi
}

poetry_failed() {
  local log=$1 found
  warning "Failed to install the dependencies with Poetry."
  if said 'changed significantly since poetry\.lock was last generated|poetry\.lock is not up to date with pyproject\.toml'; then
    because "poetry.lock is not that of pyproject.toml: run \`poetry lock\`, and commit both."
  elif said 'lock file is not compatible with the current version of Poetry'; then
    because "poetry.lock is of a newer Poetry than the one that reads it here: manifold builds:cache:purge fetches the newest, or write the lock anew with \`poetry lock\`."
  elif said 'Invalid TOML file ([^:]+)'; then
    because "\`${found[0]#"${build_dir:-}/"}\` cannot be read: see the place above."
  elif said '^(Invalid|Unexpected|Empty) .*\(at line ([0-9]+)|Unable to read the lock file'; then
    because "poetry.lock cannot be read${found[1]:+ (line ${found[1]})}: remove what a merge left in it, or make it anew (\`poetry lock\`), and commit it."
  elif said 'Current Python version \(([0-9.]+)\) is not (allowed|supported) by the project \(([^)]+)\)'; then
    because "The app asks for Python ${found[2]}; the stack $STACK has ${found[0]}." \
      "Change it in pyproject.toml, or choose another stack (\`manifold stack\`)."
  elif said 'Authorization error accessing ([^ ]+)'; then
    because "The package index let us not in (${found[0]}): its credentials belong into config vars, POETRY_HTTP_BASIC_NAME_USERNAME and POETRY_HTTP_BASIC_NAME_PASSWORD (NAME as in pyproject.toml, in capitals)."
  elif said 'All attempts to connect to ([^ ]+) failed'; then
    because "The package index ${found[0]} could not be reached. Try again later."
  elif said 'Downloaded distributions for ([^ ]+) \(([^)]+)\) did not match any known checksums'; then
    because "${found[0]} ${found[1]} is not the one that poetry.lock has the hash of: start anew (manifold builds:cache:purge); if that is not it, \`poetry lock --regenerate\`, and commit it."
  elif said 'Unable to find installation candidates for ([^ ]+) \(([^)]+)\)'; then
    because "The package index has no ${found[0]} ${found[1]} for the stack's Python: run \`poetry update ${found[0]}\`, and commit poetry.lock." \
      "Or choose another stack (\`manifold stack\`)."
  elif said 'Path ([^ ]+) for ([^ ]+) does not exist'; then
    because "\`${found[0]#"${build_dir:-}/"}\` is the path of ${found[1]} and is not there: commit it, or see whether .slugignore or .gitignore hides it."
  elif installer_is_missing poetry || native_is_missing; then
    :
  elif said 'issues with ([^ ]+) \('; then
    because "${found[0]} is built here, and that failed: see above." \
      "Take a version of it that is published as a wheel."
  elif no_room_is_left; then
    :
  else
    because "Its output above says why; \`poetry install --only main\` in a new clone on your machine should do the same."
  fi
}

# It only says what is locked: pip installs that.
pipenv_failed() {
  local log=$1 found
  if said 'Failed to load lockfile at|LockfileCorruptException'; then
    warning "Failed to install the dependencies with Pipenv."
    because "Pipfile.lock cannot be read (is it merged by hand?): run \`pipenv lock\`, and commit it."
  elif said 'tomlkit\.exceptions|TOMLDecodeError'; then
    warning "Failed to install the dependencies with Pipenv."
    because "The Pipfile cannot be read: see the place above; \`pipenv verify\` on your machine tells the same."
  elif said "^ERROR: .*(No matching distribution found for|satisfies the requirement) pipenv( |\$)"; then
    warning "Failed to install the dependencies with Pipenv."
    installer_is_missing pipenv
  else
    pip_failed "$log"
  fi
}
